"""passt, which forwards the guest's ssh, has ended or stands still."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, STOPPED, Cause, Scene


@CAUSES.register("passt")
class Passt(Cause):
    """Where it ends libvirt starts another one (processNetdevStreamDisconnectedEvent(), qemu_driver.c), which
    knows nothing of the connections of the one before."""

    order: ClassVar = 60
    patient: ClassVar = True

    def look(self, scene: Scene) -> GuestError | None:
        if any(event.name == "NETDEV_STREAM_DISCONNECTED" for event in scene.domain.happened()):
            return scene.lost("passt, which connects the guest to the network, ended")
        pid = scene.domain.passt()
        if pid is not None and scene.process_state(pid) == STOPPED:
            return scene.lost(
                "a signal has stopped passt (SIGSTOP), which connects the guest to the network",
                hint=f"let it go on: kill -CONT {pid}",
            )
        return None

"""A signal has stopped QEMU."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, STOPPED, Cause, Scene


@CAUSES.register("qemu-stopped")
class QemuStopped(Cause):
    """SIGSTOP, or SIGTSTP of a terminal. Its guest stands still for that time and its clocks do not, so what
    is measured is not the guest's doing: the trial is lost also where QEMU goes on."""

    order: ClassVar = 50

    def look(self, scene: Scene) -> GuestError | None:
        if not scene.domain.qemu.shell.is_here and scene.error is None:
            return None  # each look costs the host that is measured
        if scene.qemu_state() == STOPPED:
            pid = scene.domain.qemu.pid
            return scene.lost("a signal has stopped QEMU (SIGSTOP)", hint=f"let it go on: kill -CONT {pid}")
        seconds = scene.seen.qemu_stopped_seconds
        if seconds is None:
            return None
        return scene.lost(f"a signal had stopped QEMU (SIGSTOP), for {seconds:.0f} s or more")

"""The guest's kernel panicked."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import GuestError, GuestPanicError, InfrastructureError
from orchestrator.guest.causes.base import CAUSES, Cause, Scene

# A guest that panics resets at once (panic=-1, guests/*.yaml), which ends its QEMU.
RESET_SECONDS = 3.0
_ANSWER_SECONDS = 20.0


@CAUSES.register("panic")
class Panic(Cause):
    """What its console shows may come from any process of the guest, by /dev/console or /dev/kmsg. A kernel
    that has panicked has stopped all CPUs (panic() in kernel/panic.c): it resets, or answers no more."""

    order: ClassVar = 10

    def look(self, scene: Scene) -> GuestError | None:
        line = scene.console.panic()
        if not line:
            return None
        if not scene.seen.panicked:
            ended = wait_for(
                lambda: None if scene.domain.is_running() else True, Deadline(RESET_SECONDS), every=0.1
            )
            if not ended and _answers(scene):
                scene.console.disbelieve()
                return None
            scene.seen.panicked = True
        return GuestPanicError("the guest's kernel panicked", details=line, console_tail=scene.console.tail())


def _answers(scene: Scene) -> bool:
    try:
        scene.shell.run(["true"], seconds=_ANSWER_SECONDS)
    except InfrastructureError:
        return False
    return True

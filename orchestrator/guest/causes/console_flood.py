"""The guest fills the host's disk with what it prints."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, Cause, Scene
from orchestrator.guest.console import FLOOD_BYTES


@CAUSES.register("console-flood")
class ConsoleFlood(Cause):
    """It is ended before the disk is full."""

    order: ClassVar = 20

    def look(self, scene: Scene) -> GuestError | None:
        return scene.lost("the guest floods its console") if scene.console.size > FLOOD_BYTES else None

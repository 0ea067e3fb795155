"""libvirt moves the guest elsewhere."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, Cause, Scene


@CAUSES.register("added")
class Moved(Cause):
    """A job of libvirt's."""

    order: ClassVar = 15
    patient: ClassVar = True

    def look(self, scene: Scene) -> GuestError | None:
        job = scene.domain.busy().get("guest")
        return scene.lost(f"libvirt had begun a {job} of it") if job else None

"""QEMU has stopped the vCPUs by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.errors import GuestError
from orchestrator.guest.causes.base import CAUSES, Cause, Scene
from orchestrator.printable import clean, printable
from orchestrator.units import format_size

_DF_SECONDS = 10.0


@CAUSES.register("qemu-paused")
class QemuPaused(Cause):
    """At an I/O error of its disk (`error_policy` in `host.domain_xml`), at an error of KVM, and the like.
    A guest that we suspend, for a snapshot, is none."""

    order: ClassVar = 40

    def look(self, scene: Scene) -> GuestError | None:
        why = scene.domain.why_paused()
        if not why:
            return None
        events = scene.domain.happened()
        error = next((one.data for one in reversed(events) if one.name == "BLOCK_IO_ERROR"), None)
        if error is None:
            said = printable(scene.domain.why_ended())
            return scene.lost(f"QEMU paused the guest: {why}", details=said)
        return _of_disk(scene, error, why)


def _of_disk(scene: Scene, error: Mapping[str, Any], why: str) -> GuestError:
    disk = scene.domain.files().disk
    said = f"{clean(error.get('operation', 'access'))} of {disk}: {clean(error.get('reason') or why)}"
    if not error.get("nospace"):
        return scene.lost(f"QEMU paused the guest, for its disk failed: {said}", hint=f"check {disk.parent}")
    return scene.lost(
        f"QEMU paused the guest: no space for its disk in {disk.parent}{_free(scene, disk.parent)}",
        details=said,
        hint=f"make room there: df -h {disk.parent}",
    )


def _free(scene: Scene, folder: Path) -> str:
    """How much is free there, as the host says."""
    argv = ["df", "-B1", "--output=avail", str(folder)]
    last = scene.domain.qemu.shell.run(argv, seconds=_DF_SECONDS, check=False).split()[-1:]
    return f", {format_size(int(last[0]))} free" if last and last[0].isdigit() else ""

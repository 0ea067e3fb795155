"""Kernels of this machine and of the images, against what is known to be wrong with released ones."""

from __future__ import annotations

import platform
from pathlib import Path

from orchestrator.doctor.check import CheckResult, Level, Subject
from orchestrator.guest.image import find_image, list_images
from orchestrator.host.kernel_bugs import known_bugs

_FIX = "boot a kernel with the fix; contents are checked by: orchestrator run integrity"


def host(_subject: Subject) -> CheckResult:
    """The kernel of this machine."""
    release = platform.release()
    return judged(release, _config(Path("/boot") / f"config-{release}"))


def guests(subject: Subject) -> CheckResult:
    """The kernels of all images that are built."""
    looked: dict[str, list[str]] = {}
    for entry in list_images(subject.cache):
        image = find_image(Path(str(entry["folder"])), str(entry["key"]))
        for release in image.releases.values() if image else ():
            config = _config(image.folder / "boot" / f"config-{release}") if image else None
            looked[release] = known_bugs(release, config)
    warnings = [warning for found in looked.values() for warning in found]
    if warnings:
        return CheckResult(Level.NOTE, "; ".join(warnings), _FIX)
    if not looked:
        return CheckResult(
            Level.UNKNOWN, "not checked: no guest image is built yet", "orchestrator image build"
        )
    return CheckResult(Level.OK, f"no known fault: {', '.join(looked)}")


def judged(release: str, config: str | None) -> CheckResult:
    """What is known of one kernel."""
    warnings = known_bugs(release, config)
    if warnings:
        return CheckResult(Level.NOTE, "; ".join(warnings), _FIX)
    return CheckResult(Level.OK, f"no known fault: {release}")


def _config(path: Path) -> str | None:
    """A kernel's configuration, or None where it cannot be had."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None

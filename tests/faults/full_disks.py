"""A disk is full: where images, saved states, or results are."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

from campaign.fault import STEP, Expected, Fault
from campaign.scene import Scene

# Less than an image takes; more than a boot writes, and less than a saved memory; a run, and little more.
_SIZES = {"images": "60m", "states": "120m", "results": "6m"}
_LEFT_BYTES = 200 << 10
_FULL = os.strerror(28)  # ENOSPC


def _place(scene: Scene, what: str) -> Path:
    return scene.results if what == "results" else scene.cache / what


def _mount(scene: Scene, what: str) -> None:
    place = _place(scene, what)
    place.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZES[what]},mode=755", "faults", place], check=True
    )


def _unmount(scene: Scene, what: str) -> None:
    subprocess.run(["umount", "-l", _place(scene, what)], check=False)


def _fill(scene: Scene) -> None:
    """All of it but so much: samples are still taken for a while, and no snapshot is."""
    free = os.statvfs(scene.results)
    size = free.f_bavail * free.f_frsize - _LEFT_BYTES
    with (scene.results / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _disk(name: str, what: str, in_words: str, expected: Expected, **more: object) -> Fault:
    return Fault(
        f"disk-full-of-{name}",
        "machine",
        f"the disk of {in_words} is full",
        name,
        expected,
        prepare=partial(_mount, what=what),
        put_right=partial(_unmount, what=what),
        **more,  # type: ignore[arg-type]  # fields of a fault
    )


FAULTS = [
    _disk(
        "image",
        "images",
        "guest images",
        Expected(3, None, (), 300, samples=False),
        moment="building the guest image",
    ),
    _disk(
        "state",
        "states",
        "saved guests",
        Expected(3, None, ("space",), 600, samples=False),
        moment="before the steps: boot",
    ),
    _disk(
        "snapshot",
        "results",
        "results",
        Expected(3, "failed", (_FULL, "free some space"), 60),
        steps=("wait: {time: 8s}", "snapshot: {label: cut}"),
        moment=STEP,
        strike=_fill,
    ),
]

"""What a check says, and what all checks look at."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from orchestrator.guest.image import Image, find_image, list_images
from orchestrator.host.accel import Acceleration, KernelFile, choose
from orchestrator.host.runtime import runtime_folder
from orchestrator.host_kinds import LOCAL, HostKind, host_kind
from orchestrator.shipped import installed

QEMU = "qemu-system-x86_64"
# Installs whatever is missing: in a clone, before it has nothing to run.
BOOTSTRAP = "orchestrator doctor --fix" if installed() else "./bootstrap true"


class Level(StrEnum):
    """How good a finding is: fine, not looked at, worth knowing, or in the way of running guests."""

    OK = "ok"
    UNKNOWN = "not checked"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class CheckResult:
    """What a check found, and what to type (or do) about it.

    `word` is the finding for programs, where there is one: `kvm`, `EPT`, ...
    """

    level: Level
    found: str
    fix: str = ""
    word: str = ""


@dataclass(frozen=True)
class Check:
    """A finding under the name of the check that made it."""

    name: str
    level: Level
    found: str
    fix: str = ""
    word: str = ""


@dataclass(frozen=True)
class Connection:
    """A libvirt connection that was opened and closed again."""

    uri: str
    libvirt: str  # version of the library behind it
    qemu: str
    seconds: float


@dataclass(frozen=True)
class Subject:
    """What is examined. What several checks need, or what takes long, is looked at once.

    `recheck_kvm`: KVM is tried even if a check of it is kept. `host_named` gives the host of a name.
    """

    cache: Path
    guests_dir: Path
    results: Path
    connect: str | None
    recheck_kvm: bool = False
    host_named: Callable[[str], HostKind] = host_kind

    @cached_property
    def probe_kernel(self) -> KernelFile | None:
        """The default kernel of a cached image, or None when there is no image."""
        return kernel_to_try(self.cache)

    @cached_property
    def acceleration(self) -> Acceleration | None:
        """What a real kernel showed, or None when there is no kernel or no QEMU to show it with."""
        if self.probe_kernel is None or shutil.which(QEMU) is None:
            return None
        return choose("auto", self.probe_kernel, self.cache, again=self.recheck_kvm)

    @cached_property
    def connection(self) -> Connection:
        """libvirt as a run would open it, closed again. Raises what kept it from opening."""
        began = time.monotonic()
        with runtime_folder(Path("doctor")) as runtime:
            # What libvirt learns of QEMU is kept only where a run has begun to keep it.
            cache = self.cache if (self.cache / "libvirt").is_dir() else runtime
            with self.host_named(self.connect or LOCAL).connect(runtime, cache) as host:
                versions = host.versions
                uri = host.uri.partition("?")[0]
        return Connection(uri, versions["libvirt"], versions["qemu"], time.monotonic() - began)


def kernel_to_try(cache: Path) -> KernelFile | None:
    """The default kernel of a cached image, or None when there is no image."""
    for entry in list_images(cache):
        image: Image | None = find_image(Path(str(entry["folder"])), str(entry["key"]))
        if image is not None and image.releases:
            kernel = image.kernel_to_try(next(iter(image.releases)))
            if kernel.path.is_file():
                return kernel
    return None

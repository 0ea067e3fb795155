"""The guest's /proc/meminfo (Documentation/filesystems/proc.rst)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import kib_lines

_PATH = "/proc/meminfo"


@PROBES.register("guest_meminfo")
class GuestMeminfo(Probe):
    """Every line in kB, in bytes, by the kernel's own name."""

    guest_files: ClassVar = (_PATH,)

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        values = kib_lines(tick.files.get(_PATH) or "")
        if "PageTables" not in values:
            yield Reading("PageTables", None, "bytes", gap=f"the guest's {_PATH} has no such line")
        for name, value in values.items():
            yield Reading(name, value, "bytes")

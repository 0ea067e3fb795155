"""Page tables and memory of the workloads' processes in the guest (/proc/PID/status)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import kib_lines
from orchestrator.series import Series

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

_GAP = "its /proc/PID/status has no such line"  # a zombie's has none


@PROBES.register("guest_process")
class GuestProcess(Probe):
    """VmPTE counts tables of all levels (mm_pgtables_bytes(), include/linux/mm.h), and those that are
    deposited for huge pages."""

    series: ClassVar = (
        Series(
            "VmPTE",
            "bytes",
            "page tables of the process, of all levels, and those deposited for huge pages",
            memory_bytes=1,
        ),
        Series("VmRSS", "bytes", "resident memory of the process"),
        Series("VmSize", "bytes", "address space of the process"),
        Series("VmLck", "bytes", "locked memory of the process"),
        Series("VmPin", "bytes", "pinned memory of the process"),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        for comm, pid, text in tick.processes:
            values = kib_lines(text)
            for name in (one.name for one in self.series):
                gap = "" if name in values else _GAP
                yield Reading(name, values.get(name), source=f"{comm}:{pid}", gap=gap)

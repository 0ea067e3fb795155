"""Page tables and memory of the workloads' processes in the guest (/proc/PID/status)."""

from collections.abc import Iterator

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import kib_lines

_WANTED = ("VmPTE", "VmRSS", "VmSize", "VmLck", "VmPin")


@PROBES.register("guest_process")
class GuestProcess(Probe):
    """VmPTE counts tables of all levels (mm_pgtables_bytes(), include/linux/mm.h), and those that are
    deposited for huge pages."""

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        for comm, pid, text in tick.processes:
            values = kib_lines(text)
            for name in _WANTED:
                if name in values:
                    yield Reading(name, values[name], "bytes", source=f"{comm}:{pid}")
                else:
                    gap = "its /proc/PID/status has no such line"  # a zombie's has none
                    yield Reading(name, None, "bytes", source=f"{comm}:{pid}", gap=gap)

"""What the guest's QEMU process costs its host (/proc/PID/status)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.series import Headline, Series
from orchestrator.units import PAGE_BYTES


@PROBES.register("host_qemu")
class HostQemu(Probe):
    """VmPTE is the first level of translation on the host: QEMU's own tables, not KVM's. Those that are
    deposited for huge pages count (mm_inc_nr_ptes() in mm/huge_memory.c), 4 KiB for each."""

    series: ClassVar = (
        Series(
            "VmRSS",
            "bytes",
            "resident memory of the QEMU process",
            headlines=(Headline("host_rss_bytes", "last", "lower", PAGE_BYTES, shifts=True),),
        ),
        Series(
            "VmPTE",
            "bytes",
            "page tables of the QEMU process, of all levels, in use, empty, or kept for its huge pages "
            "(4 KiB each): so it is as much with huge pages as without",
            headlines=(Headline("host_page_table_bytes", "largest", "lower", PAGE_BYTES, shifts=True),),
            moment="host_page_table_bytes",
        ),
        Series("VmSwap", "bytes", "swapped memory of the QEMU process"),
        Series("VmSize", "bytes", "address space of the QEMU process"),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        from orchestrator.host.qemu_process import status_bytes

        values = status_bytes(host.domain.qemu)
        for name in (one.name for one in self.series):
            gap = "" if name in values else "QEMU's /proc/PID/status has no such line"
            yield Reading(name, values.get(name), gap=gap)

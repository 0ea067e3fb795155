"""The guest's /proc/meminfo (Documentation/filesystems/proc.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import kib_lines
from orchestrator.series import Chart, Headline, Line, Series
from orchestrator.units import PAGE_BYTES

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

_PATH = "/proc/meminfo"
_CHART = Chart("page-tables", "Guest page tables", "PageTables of the guest's /proc/meminfo.", order=80)


@PROBES.register("guest_meminfo")
class GuestMeminfo(Probe):
    """Every line in kB, in bytes, by the kernel's own name."""

    guest_files: ClassVar = (_PATH,)
    series: ClassVar = (
        Series(
            "PageTables",
            "bytes",
            "page tables of the guest's processes, of all levels",
            headlines=(
                Headline("guest_page_table_bytes_peak", "largest", "lower", PAGE_BYTES, shifts=True),
                Headline("guest_page_table_bytes_end", "last", "lower", PAGE_BYTES, shifts=True),
            ),
            line=Line(_CHART, "page tables"),
            memory_bytes=1,
        ),
        # No memory that the guest has: addresses, promises, swap, and a direct map that covers holes.
        Series("Vmalloc*", "bytes", "addresses for vmalloc(): total, used"),
        Series("Commit*", "bytes", "memory that was promised to processes, and the limit for that"),
        Series("Swap*", "bytes", "swap: total, free, and what of it is in memory, too"),
        Series("Zswap*", "bytes", "swap that is kept compressed in memory"),
        Series("DirectMap*", "bytes", "the kernel's direct map by size of its pages"),
        Series("*", "bytes", "every other line of the guest's /proc/meminfo that is in kB", memory_bytes=1),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        values = kib_lines(tick.files.get(_PATH) or "")
        if "PageTables" not in values:
            yield Reading("PageTables", None, gap=f"the guest's {_PATH} has no such line")
        for name, value in values.items():
            yield Reading(name, value)

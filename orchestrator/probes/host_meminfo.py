"""The host's /proc/meminfo, in which KVM's second-level tables are counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import NO_SECOND_LEVEL, Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import MEMINFO, SECOND_LEVEL, VMSTAT, kib_lines, second_level_bytes
from orchestrator.records.accel import is_emulated
from orchestrator.series import Chart, Headline, Line, Series
from orchestrator.units import PAGE_BYTES

if TYPE_CHECKING:
    from orchestrator.host.shell import HostShell

SECOND_LEVEL_BYTES = "second_level_bytes"
_NOT_COUNTED = "the host's kernel does not count it"
SECOND_LEVEL_CHART = Chart(
    "second-level-time",
    "Second-level tables over time",
    "Solid is what KVM has, of all levels (SecPageTables of the host without IOMMU tables); dashed is "
    "what is needed to map what QEMU has of the guest, predicted from its page map. Between them are "
    "tables that map nothing.",
    order=90,
    needs_moments=True,
)


@PROBES.register("host_meminfo")
class HostMeminfo(Probe):
    """`second_level_bytes` are KVM's tables for all guests of the host, of all levels.

    `SecPageTables` (since 6.1) covers IOMMU tables as well (since 6.11, mm/vmstat.c: nr_iommu_pages), which
    are taken off. Under TCG it counts tables of other guests only, so that nothing is read of this one: the
    kernel's 0 is not a measurement of it.
    """

    series: ClassVar = (
        Series(SECOND_LEVEL, "bytes", "KVM's and the IOMMU's tables, of the whole host (since 6.1)"),
        Series("PageTables", "bytes", "page tables of all processes of the host"),
        Series("MemAvailable", "bytes", "what the host could give to processes without swapping"),
        Series("MemFree", "bytes", "free memory of the host"),
        Series(
            SECOND_LEVEL_BYTES,
            "bytes",
            "SecPageTables without IOMMU tables: those of KVM for all guests, of all levels. The metric and "
            "moments.csv are without that of `host_meminfo/bare`, read before the guest was started (a "
            "nested host has no other guests); they are empty under TCG, where all that the host counts is "
            "of other guests, and where nothing above 0 is left",
            headlines=(Headline("second_level_bytes", "last", "lower", PAGE_BYTES),),
            line=Line(SECOND_LEVEL_CHART, "measured"),
            moment="second_level_bytes",
            of_all_guests=True,
        ),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        for reading in self.from_bare_host(host.shell):
            if reading.name == SECOND_LEVEL_BYTES and is_emulated(host.accel):
                yield Reading(reading.name, None, gap=NO_SECOND_LEVEL)
            else:
                yield reading

    def from_bare_host(self, shell: HostShell) -> Iterator[Reading]:
        files = shell.texts(MEMINFO, VMSTAT)
        values = kib_lines(files[MEMINFO])
        for name in (one.name for one in self.series if one.name != SECOND_LEVEL_BYTES):
            if name in values:
                yield Reading(name, values[name])
            else:
                yield Reading(name, None, gap=_NOT_COUNTED)
        counted = second_level_bytes(values, files.get(VMSTAT, ""))
        yield Reading(SECOND_LEVEL_BYTES, counted, gap=_NOT_COUNTED if counted is None else "")

"""/proc/vmstat of the guest, and of its whole host: OOM kills and pages swapped.

Of the guest also the size of the memory map, and counters of THP, compaction and the balloon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import VMSTAT, counters
from orchestrator.series import Headline, Series
from orchestrator.units import PAGE_BYTES

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

_GAP = f"the host's {VMSTAT} has no such line"


def _ran_out(side: str, where: str, out_of: str) -> tuple[Series, ...]:
    """What either kernel counts of memory that ran out."""
    return (
        Series(
            "oom_kill",
            "count",
            f"processes{where} that the OOM killer ended{out_of} (kernels from 4.13)",
            headlines=(Headline(f"{side}_oom_kills", "growth", "lower", 1, worst=True),),
        ),
        Series(
            "pswpin",
            "count",
            f"pages{where} that were read from swap",
            headlines=(Headline(f"{side}_swap_in_pages", "growth", "lower", 1),),
        ),
        Series(
            "pswpout",
            "count",
            f"pages{where} that were written to swap",
            headlines=(Headline(f"{side}_swap_out_pages", "growth", "lower", 1),),
        ),
    )


@PROBES.register("guest_vmstat")
class GuestVmstat(Probe):
    """Counters as the kernel names them; pages stay pages."""

    guest_files: ClassVar = (VMSTAT,)
    # mm/vmstat.c vmstat_text: some hundred lines, most of them about things that no metric is made of.
    series: ClassVar = (
        Series("vmstat", "count", "stands for all of the file where the guest has none"),
        Series("nr_free_pages*", "count", "free pages", memory_bytes=PAGE_BYTES),
        Series("nr_page_table_pages", "count", "pages of page tables", memory_bytes=PAGE_BYTES),
        Series(
            "nr_memmap*",
            "count",
            "pages of struct pages (kernels from 6.11); `guest_memmap_bytes`",
            memory_bytes=PAGE_BYTES,
        ),
        Series("thp_*", "count", "events of transparent huge pages (transhuge.rst)"),
        Series("compact_*", "count", "events of compaction"),
        Series("balloon_*", "count", "pages that the balloon inflated, deflated or migrated"),
        Series("pgmigrate_*", "count", "pages that were migrated, or failed to be"),
        Series("pgsteal_*", "count", "pages that were reclaimed"),
        Series("pgfault*", "count", "page faults"),
        *_ran_out("guest", "", ""),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        text = tick.files.get(VMSTAT)
        if text is None:
            yield Reading("vmstat", None, gap=f"the guest has no {VMSTAT}")
            return
        for name, value in counters(text).items():
            if self.series_of(name):
                yield Reading(name, value)


@PROBES.register("host_vmstat")
class HostVmstat(Probe):
    """Counters of the whole host: what other processes have part in counts as well."""

    outlives_guest: ClassVar = True
    series: ClassVar = _ran_out("host", " of the whole host", ", out of memory of the host or of a cgroup")

    def from_host(self, host: HostView) -> Iterator[Reading]:
        found = counters(host.shell.texts(VMSTAT).get(VMSTAT, ""))
        for name in (one.name for one in self.series):
            yield Reading(name, found.get(name), gap="" if name in found else _GAP)

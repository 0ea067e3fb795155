"""The guest's /proc/vmstat: memory-map size; counters of THP, compaction, balloon, swap and OOM kills."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import counters
from orchestrator.series import Headline, Series

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

_PATH = "/proc/vmstat"


@PROBES.register("guest_vmstat")
class GuestVmstat(Probe):
    """Counters as the kernel names them; pages stay pages."""

    guest_files: ClassVar = (_PATH,)
    # mm/vmstat.c vmstat_text: some hundred lines, most of them about things that no metric is made of.
    series: ClassVar = (
        Series("vmstat", "count", "stands for all of the file where the guest has none"),
        Series("nr_free_pages*", "count", "free pages"),
        Series("nr_page_table_pages", "count", "pages of page tables"),
        Series("nr_memmap*", "count", "pages of struct pages (kernels from 6.11); `guest_memmap_bytes`"),
        Series("thp_*", "count", "events of transparent huge pages (transhuge.rst)"),
        Series("compact_*", "count", "events of compaction"),
        Series("balloon_*", "count", "pages that the balloon inflated, deflated or migrated"),
        Series("pgmigrate_*", "count", "pages that were migrated, or failed to be"),
        Series("pgsteal_*", "count", "pages that were reclaimed"),
        Series("pgfault*", "count", "page faults"),
        Series(
            "oom_kill",
            "count",
            "processes that the OOM killer ended (kernels from 4.13)",
            headlines=(Headline("guest_oom_kills", "growth", "lower", 1, worst=True),),
        ),
        Series(
            "pswpin",
            "count",
            "pages that were read from swap",
            headlines=(Headline("guest_swap_in_pages", "growth", "lower", 1),),
        ),
        Series(
            "pswpout",
            "count",
            "pages that were written to swap",
            headlines=(Headline("guest_swap_out_pages", "growth", "lower", 1),),
        ),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        text = tick.files.get(_PATH)
        if text is None:
            yield Reading("vmstat", None, gap=f"the guest has no {_PATH}")
            return
        for name, value in counters(text).items():
            if self.series_of(name):
                yield Reading(name, value)

"""The guest's /proc/vmstat: memory-map size, and the counters of THP, compaction and ballooning."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe, is_count

_PATH = "/proc/vmstat"
# mm/vmstat.c vmstat_text: some hundred lines, most of them about things that no metric is made of.
_WANTED = (
    "nr_free_pages",
    "nr_page_table_pages",
    "nr_memmap",
    "thp_",
    "compact_",
    "balloon_",
    "pgmigrate_",
    "pgsteal_",
    "pgfault",
    "oom_kill",
)


@PROBES.register("guest_vmstat")
class GuestVmstat(Probe):
    """Counters as the kernel names them; pages stay pages."""

    guest_files: ClassVar = (_PATH,)

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        text = tick.files.get(_PATH)
        if text is None:
            yield Reading("vmstat", None, "count", gap=f"the guest has no {_PATH}")
            return
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name.startswith(_WANTED) and is_count(value):
                yield Reading(name, int(value), "count")

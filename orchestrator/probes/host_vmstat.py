"""What the host's kernel counts of memory that ran out: OOM kills, and pages swapped (/proc/vmstat)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import VMSTAT, counters
from orchestrator.series import Headline, Series

_GAP = f"the host's {VMSTAT} has no such line"


@PROBES.register("host_vmstat")
class HostVmstat(Probe):
    """Counters of the whole host: what other processes have part in counts as well."""

    outlives_guest: ClassVar = True
    series: ClassVar = (
        Series(
            "oom_kill",
            "count",
            "processes of the whole host that the OOM killer ended, out of memory of the host or of a "
            "cgroup (kernels from 4.13)",
            headlines=(Headline("host_oom_kills", "growth", "lower", 1, worst=True),),
        ),
        Series(
            "pswpin",
            "count",
            "pages of the whole host that were read from swap",
            headlines=(Headline("host_swap_in_pages", "growth", "lower", 1),),
        ),
        Series(
            "pswpout",
            "count",
            "pages of the whole host that were written to swap",
            headlines=(Headline("host_swap_out_pages", "growth", "lower", 1),),
        ),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        found = counters(host.shell.texts(VMSTAT).get(VMSTAT, ""))
        for name in (one.name for one in self.series):
            yield Reading(name, found.get(name), gap="" if name in found else _GAP)

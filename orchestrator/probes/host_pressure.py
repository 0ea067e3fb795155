"""How long processes of the whole host waited for memory: PSI (Documentation/accounting/psi.rst)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import MEMORY_PRESSURE, NO_PRESSURE, stalled_seconds
from orchestrator.series import Headline, Series


@PROBES.register("host_pressure")
class HostPressure(Probe):
    """`some`: at least one task was stalled on memory, `full`: all that were not idle. Totals since boot."""

    outlives_guest: ClassVar = True
    series: ClassVar = (
        Series(
            "some",
            "seconds",
            "of the whole host: time in which at least one task was stalled on memory",
            headlines=(Headline("host_memory_some_seconds", "growth", "lower"),),
        ),
        Series(
            "full",
            "seconds",
            "of the whole host: time in which all tasks that were not idle were stalled on memory",
            headlines=(Headline("host_memory_full_seconds", "growth", "lower"),),
        ),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        found = stalled_seconds(host.shell.texts(MEMORY_PRESSURE).get(MEMORY_PRESSURE, ""))
        for name in (one.name for one in self.series):
            gap = "" if name in found else f"the host's {NO_PRESSURE}"
            yield Reading(name, found.get(name), gap=gap)

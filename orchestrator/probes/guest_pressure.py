"""How long the guest's processes waited for memory: PSI (Documentation/accounting/psi.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.procfs import MEMORY_PRESSURE, NO_PRESSURE, stalled_seconds
from orchestrator.series import Headline, Series

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick


@PROBES.register("guest_pressure")
class GuestPressure(Probe):
    """`some`: at least one task was stalled on memory, `full`: all that were not idle. Totals since boot."""

    guest_files: ClassVar = (MEMORY_PRESSURE,)
    series: ClassVar = (
        Series(
            "some",
            "seconds",
            "time in which at least one task was stalled on memory",
            headlines=(Headline("guest_memory_some_seconds", "growth", "lower"),),
        ),
        Series(
            "full",
            "seconds",
            "time in which all tasks that were not idle were stalled on memory",
            headlines=(Headline("guest_memory_full_seconds", "growth", "lower"),),
        ),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        found = stalled_seconds(tick.files.get(MEMORY_PRESSURE) or "")
        for name in (one.name for one in self.series):
            gap = "" if name in found else f"the guest's {NO_PRESSURE}"
            yield Reading(name, found.get(name), gap=gap)

"""How long processes of the guest, and of its whole host, waited for memory: PSI (accounting/psi.rst)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import MEMORY_PRESSURE, NO_PRESSURE, stalled_seconds
from orchestrator.series import Headline, Series

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick

# May lie between the uptime of a sample and the reading of the last of its files.
_READ_SECONDS: Final = 60.0

_WHO: Final = {"some": "at least one task was", "full": "all tasks that were not idle were"}


def _series(side: str, where: str) -> tuple[Series, ...]:
    return tuple(
        Series(
            name,
            "seconds",
            f"{where}time in which {who} stalled on memory",
            headlines=(Headline(f"{side}_memory_{name}_seconds", "growth", "lower"),),
        )
        for name, who in _WHO.items()
    )


def _readings(side: str, series: Sequence[Series], text: str) -> Iterator[Reading]:
    found = stalled_seconds(text)
    for name in (one.name for one in series):
        gap = "" if name in found else f"the {side}'s {NO_PRESSURE}"
        yield Reading(name, found.get(name), gap=gap)


def _believed(reading: Reading, uptime: float) -> Reading:
    """A guest says what it likes, but no stall is longer than it has run."""
    if reading.value is None or float(reading.value) <= uptime + _READ_SECONDS:
        return reading
    gap = f"the guest says {float(reading.value):.0f} s, and it has run for {uptime:.0f} s"
    return replace(reading, value=None, gap=gap)


@PROBES.register("guest_pressure")
class GuestPressure(Probe):
    """Totals since the guest's boot."""

    guest_files: ClassVar = (MEMORY_PRESSURE,)
    series: ClassVar = _series("guest", "")

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        for reading in _readings("guest", self.series, tick.files.get(MEMORY_PRESSURE) or ""):
            yield _believed(reading, tick.uptime_ns / 1e9)


@PROBES.register("host_pressure")
class HostPressure(Probe):
    """Totals since the host's boot."""

    outlives_guest: ClassVar = True
    series: ClassVar = _series("host", "of the whole host: ")

    def from_host(self, host: HostView) -> Iterator[Reading]:
        text = host.shell.texts(MEMORY_PRESSURE).get(MEMORY_PRESSURE, "")
        yield from _readings("host", self.series, text)

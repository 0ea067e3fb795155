"""The guest's own clock beside ours: a sample that arrives late shows as a lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe
from orchestrator.series import Series

if TYPE_CHECKING:
    from orchestrator.guest.sampler import Tick


@PROBES.register("guest_uptime")
class GuestUptime(Probe):
    """Seconds since the guest booted, when it began to read the sample."""

    series: ClassVar = (
        Series("uptime", "seconds", "since the guest booted, when it began to read the sample"),
    )

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        yield Reading("uptime", tick.uptime_ns / 1e9)

"""The guest's own clock beside ours: a sample that arrives late shows as a lag."""

from collections.abc import Iterator

from orchestrator.guest.sampler import Tick
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, Probe


@PROBES.register("guest_uptime")
class GuestUptime(Probe):
    """Seconds since the guest booted, when it began to read the sample."""

    def from_guest(self, tick: Tick) -> Iterator[Reading]:
        yield Reading("uptime", tick.uptime_ns / 1e9, "seconds")

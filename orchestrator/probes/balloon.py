"""The balloon (QMP query-balloon, and libvirt's statistics of it)."""

from collections.abc import Iterator

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.units import KIB

# virDomainMemoryStatTags: these are KiB; the others are counters or times.
_KIB = ("unused", "available", "usable", "rss", "disk_caches")


@PROBES.register("balloon")
class BalloonProbe(Probe):
    """`actual` is what the balloon leaves of the boot memory; the rest is what the guest's driver says."""

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("actual", host.domain.balloon_bytes(), "bytes")
        statistics = host.domain.balloon_statistics()
        for name in _KIB:
            if name in statistics:
                yield Reading(name, statistics[name] * KIB, "bytes")
            else:
                yield Reading(name, None, "bytes", gap="the guest's balloon driver has not said yet")

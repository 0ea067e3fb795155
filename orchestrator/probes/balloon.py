"""The balloon (QMP query-balloon, and libvirt's statistics of it)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.series import Chart, Line, Series
from orchestrator.units import KIB

_CHART = Chart("balloon", "Balloon", "Memory that the balloon leaves to the guest.", order=110)
_NOT_YET = "the guest's balloon driver has not said yet"


@PROBES.register("balloon")
class BalloonProbe(Probe):
    """`actual` is what the balloon leaves of the boot memory; the rest is what the guest's driver says."""

    # Of virDomainMemoryStatTags, those that are KiB; the others are counters or times.
    series: ClassVar = (
        Series(
            "actual",
            "bytes",
            "what the balloon leaves of the boot memory",
            line=Line(_CHART, "left to the guest"),
        ),
        Series("unused", "bytes", "the guest's MemFree, as its balloon driver says", memory_bytes=1),
        Series("available", "bytes", "the guest's MemTotal, as its balloon driver says", memory_bytes=1),
        Series("usable", "bytes", "the guest's MemAvailable, as its balloon driver says", memory_bytes=1),
        Series("rss", "bytes", "resident memory of the QEMU process, as libvirt says"),
        Series("disk_caches", "bytes", "the guest's page cache, as its balloon driver says", memory_bytes=1),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        actual, *rest = self.series
        yield Reading(actual.name, host.domain.balloon_bytes())
        statistics = host.domain.balloon_statistics()
        for name in (one.name for one in rest):
            if name in statistics:
                yield Reading(name, statistics[name] * KIB)
            else:
                yield Reading(name, None, gap=_NOT_YET)

"""The host's /proc/meminfo, for what KVM's second-level tables are counted in."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe, kib_lines

_WANTED = ("SecPageTables", "PageTables", "MemAvailable", "MemFree")


@PROBES.register("host_meminfo")
class HostMeminfo(Probe):
    """`SecPageTables` (since 6.1) covers all guests of the host, and IOMMU tables (since 6.11)."""

    def from_host(self, _host: HostView) -> Iterator[Reading]:
        yield from self.from_bare_host()

    def from_bare_host(self) -> Iterator[Reading]:
        values = kib_lines(Path("/proc/meminfo").read_text())
        for name in _WANTED:
            if name in values:
                yield Reading(name, values[name], "bytes")
            else:
                yield Reading(name, None, "bytes", gap="the host's kernel does not count it")

"""The host's /proc/meminfo, for what KVM's second-level tables are counted in."""

import re
from collections.abc import Iterator

from orchestrator.host.shell import HostShell
from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe, kib_lines
from orchestrator.units import PAGE_BYTES

MEMINFO, VMSTAT = "/proc/meminfo", "/proc/vmstat"
SECOND_LEVEL = "SecPageTables"
_WANTED = (SECOND_LEVEL, "PageTables", "MemAvailable", "MemFree")
_IOMMU = re.compile(r"^nr_iommu_pages ([0-9]{1,18})$", re.MULTILINE)


@PROBES.register("host_meminfo")
class HostMeminfo(Probe):
    """`second_level_bytes` are KVM's tables for all guests of the host, of all levels.

    `SecPageTables` (since 6.1) covers IOMMU tables as well (since 6.11, mm/vmstat.c: nr_iommu_pages), which
    are taken off.
    """

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield from self.from_bare_host(host.shell)

    def from_bare_host(self, shell: HostShell) -> Iterator[Reading]:
        files = shell.texts(MEMINFO, VMSTAT)
        values = kib_lines(files[MEMINFO])
        for name in _WANTED:
            if name in values:
                yield Reading(name, values[name], "bytes")
            else:
                yield Reading(name, None, "bytes", gap="the host's kernel does not count it")
        if SECOND_LEVEL in values:
            iommu = _IOMMU.search(files.get(VMSTAT, ""))
            bytes_of_iommu = int(iommu[1]) * PAGE_BYTES if iommu else 0
            yield Reading("second_level_bytes", values[SECOND_LEVEL] - bytes_of_iommu, "bytes")

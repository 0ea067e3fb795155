"""The host's /proc/meminfo, in which KVM's second-level tables are counted."""

import re
from collections.abc import Iterator

from orchestrator.host.shell import HostShell
from orchestrator.observation import NO_SECOND_LEVEL, Reading
from orchestrator.probes.base import PROBES, HostView, Probe
from orchestrator.procfs import kib_lines
from orchestrator.units import PAGE_BYTES

MEMINFO, VMSTAT = "/proc/meminfo", "/proc/vmstat"
SECOND_LEVEL = "SecPageTables"
SECOND_LEVEL_BYTES = "second_level_bytes"
_NOT_COUNTED = "the host's kernel does not count it"
_WANTED = (SECOND_LEVEL, "PageTables", "MemAvailable", "MemFree")
_IOMMU = re.compile(r"^nr_iommu_pages ([0-9]{1,18})$", re.MULTILINE)


@PROBES.register("host_meminfo")
class HostMeminfo(Probe):
    """`second_level_bytes` are KVM's tables for all guests of the host, of all levels.

    `SecPageTables` (since 6.1) covers IOMMU tables as well (since 6.11, mm/vmstat.c: nr_iommu_pages), which
    are taken off. Under TCG it counts tables of other guests only, so that nothing is read of this one: the
    kernel's 0 is not a measurement of it.
    """

    def from_host(self, host: HostView) -> Iterator[Reading]:
        for reading in self.from_bare_host(host.shell):
            if reading.name == SECOND_LEVEL_BYTES and host.accel == "tcg":
                yield Reading(reading.name, None, reading.unit, gap=NO_SECOND_LEVEL)
            else:
                yield reading

    def from_bare_host(self, shell: HostShell) -> Iterator[Reading]:
        files = shell.texts(MEMINFO, VMSTAT)
        values = kib_lines(files[MEMINFO])
        for name in _WANTED:
            if name in values:
                yield Reading(name, values[name], "bytes")
            else:
                yield Reading(name, None, "bytes", gap=_NOT_COUNTED)
        if SECOND_LEVEL in values:
            iommu = _IOMMU.search(files.get(VMSTAT, ""))
            bytes_of_iommu = int(iommu[1]) * PAGE_BYTES if iommu else 0
            yield Reading(SECOND_LEVEL_BYTES, values[SECOND_LEVEL] - bytes_of_iommu, "bytes")
        else:
            yield Reading(SECOND_LEVEL_BYTES, None, "bytes", gap=_NOT_COUNTED)

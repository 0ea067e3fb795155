"""What the texts of /proc say (Documentation/filesystems/proc.rst). Pure: whoever calls has read the file.

A text of a guest's may be anything, and its names end up in tables and on terminals: so names and numbers
are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from orchestrator.units import KIB, PAGE_BYTES

MEMINFO: Final = "/proc/meminfo"
VMSTAT: Final = "/proc/vmstat"
SECOND_LEVEL: Final = "SecPageTables"

_KIB_LINE = re.compile(r"([A-Za-z0-9_()]{1,64}):\s+([0-9]{1,20}) kB")
_IOMMU = re.compile(r"^nr_iommu_pages ([0-9]{1,18})$", re.MULTILINE)
_STALLED = re.compile(r"^some avg10=([0-9]{1,3}\.[0-9]{2}) ", re.MULTILINE)
_PROCESSOR = re.compile(r"^processor\b", re.MULTILINE)


def kib_lines(text: str) -> dict[str, int]:
    """The `Name:  N kB` lines of /proc/meminfo or /proc/PID/status, in bytes."""
    lines = (_KIB_LINE.fullmatch(line) for line in text.splitlines())
    return {line[1]: int(line[2]) * KIB for line in lines if line}


def processors(cpuinfo: str) -> int:
    """How many processors /proc/cpuinfo lists."""
    return len(_PROCESSOR.findall(cpuinfo))


def of_first_processor(cpuinfo: str, name: str) -> str:
    """A line of /proc/cpuinfo by its name, of the first processor that has it; else empty."""
    found = re.search(rf"^{re.escape(name)}[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def second_level_bytes(meminfo: Mapping[str, int], vmstat: str) -> int | None:
    """KVM's second-level tables of all VMs, in bytes: `SecPageTables` of /proc/meminfo (since 6.1) without
    those of the IOMMU, which it has since 6.11 (mm/vmstat.c: nr_iommu_pages). None where it is not there."""
    if SECOND_LEVEL not in meminfo:
        return None
    iommu = _IOMMU.search(vmstat)
    return meminfo[SECOND_LEVEL] - (int(iommu[1]) * PAGE_BYTES if iommu else 0)


def stalled_percent(pressure: str) -> float | None:
    """Of a file of /proc/pressure (Documentation/accounting/psi.rst): in how much of the last 10 s some task
    was stalled; None for what is no such file."""
    found = _STALLED.search(pressure)
    return float(found[1]) if found else None

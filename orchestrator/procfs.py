"""What the texts of /proc say (Documentation/filesystems/proc.rst). Pure: whoever calls has read the file.

A text of a guest's may be anything, and its names end up in tables and on terminals: so names and numbers
are bounded.
"""

from __future__ import annotations

import re

from orchestrator.units import KIB

_KIB_LINE = re.compile(r"([A-Za-z0-9_()]{1,64}):\s+([0-9]{1,20}) kB")
_COUNTER = re.compile(r"([A-Za-z0-9_]{1,64}) ([0-9]{1,20})")
_PROCESSOR = re.compile(r"^processor\b", re.MULTILINE)


def kib_lines(text: str) -> dict[str, int]:
    """The `Name:  N kB` lines of /proc/meminfo or /proc/PID/status, in bytes."""
    lines = (_KIB_LINE.fullmatch(line) for line in text.splitlines())
    return {line[1]: int(line[2]) * KIB for line in lines if line}


def counters(text: str) -> dict[str, int]:
    """The `name N` lines of /proc/vmstat, as the kernel names them; pages stay pages."""
    lines = (_COUNTER.fullmatch(line) for line in text.splitlines())
    return {line[1]: int(line[2]) for line in lines if line}


def processors(cpuinfo: str) -> int:
    """How many processors /proc/cpuinfo lists."""
    return len(_PROCESSOR.findall(cpuinfo))


def of_first_processor(cpuinfo: str, name: str) -> str:
    """A line of /proc/cpuinfo by its name, of the first processor that has it; else empty."""
    found = re.search(rf"^{re.escape(name)}[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""

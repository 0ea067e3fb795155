"""What the texts of /proc say (Documentation/filesystems/proc.rst). Pure: whoever calls has read the file.

A text of a guest's may be anything, and its names end up in tables and on terminals: so names and numbers
are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.units import KIB, PAGE_BYTES

_KIB_LINE = re.compile(r"([A-Za-z0-9_()]{1,64}):\s+([0-9]{1,20}) kB")
_MOST_ZONES: Final = 1 << 13  # 1,024 nodes (CONFIG_NODES_SHIFT) of five zones
_ZONE: Final = re.compile(r"Node (\d{1,4}), zone +(\w{1,16})$")
_ZONE_PAGES: Final = re.compile(
    r"  pages free +(\d{1,12})$|        (min|spanned|present|managed) +(\d{1,12})$"
)
_PROTECTION: Final = re.compile(r" +protection: \((\d{1,12}(?:, \d{1,12}){0,15})\)$")
_ON_LISTS: Final = re.compile(r" +count: +(\d{1,12})$")
_START: Final = re.compile(r" +start_pfn: +(\d{1,16})$")
_RAM: Final = re.compile(r" *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM\b")
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


@dataclass(frozen=True)
class Zone:
    """A zone of /proc/zoneinfo; pages of 4 KiB.

    `free` are those of the buddy allocator, `on_lists` those free on PCP lists beside them. `protection` is
    its lowmem reserve against allocations that could go to each higher zone; empty where none is said.
    """

    node: int
    name: str
    free: int = 0
    min: int = 0
    spanned: int = 0
    present: int = 0
    managed: int = 0
    on_lists: int = 0
    start_pfn: int = 0
    protection: tuple[int, ...] = ()

    @property
    def movable(self) -> bool:
        """Whether it is ZONE_MOVABLE, which takes no unmovable allocation."""
        return self.name == "Movable"


def zones(zoneinfo: str) -> tuple[Zone, ...]:
    """The zones of /proc/zoneinfo, in its order; those without a page as well."""
    found: list[Zone] = []
    for line in zoneinfo.splitlines():
        if head := _ZONE.match(line):
            if len(found) == _MOST_ZONES:
                break
            found.append(Zone(int(head[1]), head[2]))
        elif found:
            found[-1] = _with_line(found[-1], line)
    return tuple(found)


def _with_line(zone: Zone, line: str) -> Zone:
    if pages := _ZONE_PAGES.match(line):
        counted: dict[str, Any] = {pages[2] or "free": int(pages[1] or pages[3])}
        return replace(zone, **counted)
    if reserve := _PROTECTION.match(line):
        return replace(zone, protection=tuple(int(word) for word in reserve[1].split(", ")))
    if count := _ON_LISTS.match(line):
        return replace(zone, on_lists=zone.on_lists + int(count[1]))
    if start := _START.match(line):
        return replace(zone, start_pfn=int(start[1]))
    return zone


def system_ram(iomem: str) -> Iterator[tuple[int, int]]:
    """Whole page frames (first, after the last) of each range of RAM in /proc/iomem, as root reads it."""
    for line in iomem.splitlines():
        if ram := _RAM.match(line):
            first, end = -(-int(ram[1], 16) // PAGE_BYTES), (int(ram[2], 16) + 1) // PAGE_BYTES
            if first < end:
                yield first, end

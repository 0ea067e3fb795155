"""What the texts of /proc say (Documentation/filesystems/proc.rst). Pure: whoever calls has read the file.

A text of a guest's may be anything, and its names end up in tables and on terminals: so names and numbers
are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from orchestrator.units import KIB, PAGE_BYTES

MEMINFO: Final = "/proc/meminfo"
VMSTAT: Final = "/proc/vmstat"
MEMORY_PRESSURE: Final = "/proc/pressure/memory"
NO_PRESSURE: Final = f"kernel has no {MEMORY_PRESSURE}: no CONFIG_PSI, or psi=0"
SECOND_LEVEL: Final = "SecPageTables"

_KIB_LINE = re.compile(r"^([A-Za-z0-9_()]{1,64}):[ \t]+([0-9]{1,20}) kB$", re.MULTILINE)
_COUNTER = re.compile(r"([A-Za-z0-9_]{1,64}) ([0-9]{1,20})")
_MOST_ZONES: Final = 1 << 13  # 1,024 nodes (CONFIG_NODES_SHIFT) of five zones
_ZONE: Final = re.compile(r"Node (\d{1,4}), zone +(\w{1,16})$")
_ZONE_PAGES: Final = re.compile(
    r"  pages free +(\d{1,12})$|        (min|spanned|present|managed) +(\d{1,12})$"
)
_PROTECTION: Final = re.compile(r" +protection: \((\d{1,12}(?:, \d{1,12}){0,15})\)$")
_ON_LISTS: Final = re.compile(r" +count: +(\d{1,12})$")
_START_PFN: Final = re.compile(r" +start_pfn: +(\d{1,16})$")
_RAM: Final = re.compile(r" *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM\b")
_STALLED = re.compile(r"^some avg10=([0-9]{1,3}\.[0-9]{2}) ", re.MULTILINE)
_STALLS = re.compile(r"^(some|full) avg10=.{1,64} total=([0-9]{1,18})$", re.MULTILINE)
_PROCESSOR = re.compile(r"^processor\b", re.MULTILINE)


def kib_lines(text: str) -> dict[str, int]:
    """The `Name:  N kB` lines of /proc/meminfo or /proc/PID/status, in bytes."""
    return {name: int(size) * KIB for name, size in _KIB_LINE.findall(text)}


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


def second_level_bytes(meminfo: Mapping[str, int], vmstat: str) -> int | None:
    """KVM's second-level tables of all VMs, in bytes: `SecPageTables` of /proc/meminfo (since 6.1) without
    those of the IOMMU, which it has since 6.11 (mm/vmstat.c: nr_iommu_pages). None where it is not there."""
    if SECOND_LEVEL not in meminfo:
        return None
    return meminfo[SECOND_LEVEL] - counters(vmstat).get("nr_iommu_pages", 0) * PAGE_BYTES


def stalled_percent(pressure: str) -> float | None:
    """Of a file of /proc/pressure (Documentation/accounting/psi.rst): in how much of the last 10 s some task
    was stalled; None for what is no such file."""
    found = _STALLED.search(pressure)
    return float(found[1]) if found else None


def stalled_seconds(pressure: str) -> dict[str, float]:
    """Of the same file: for how long since the boot some task, and all that were not idle, were stalled."""
    return {line[1]: int(line[2]) / 1e6 for line in _STALLS.finditer(pressure)}


@dataclass(frozen=True)
class ProcessStatus:
    """What /proc/PID/stat and status say. `sizes` are the lines in kB, in bytes: VmRSS, VmPTE, ..."""

    comm: str
    """Up to 15 characters, whatever they are; of a kernel thread up to 63."""
    user: int
    started_ticks: int
    ended: bool
    """It is a zombie: it holds nothing."""
    sizes: dict[str, int] = field(default_factory=dict)


_UID = re.compile(r"^Uid:\t([0-9]{1,10})\b", re.MULTILINE)
_STAT = re.compile(r"[0-9]{1,10} \((.{0,64})\) (.+)", re.DOTALL)
# Behind the name in /proc/PID/stat: the state is field 3, the start field 22 (proc_pid_stat(5)).
_STATE, _START = 0, 19


def process_status(stat: str, status: str) -> ProcessStatus | None:
    """A process by its two files; None where they are not of one."""
    found, user = _STAT.match(stat), _UID.search(status)
    fields = found[2].split() if found else []
    if not found or not user or len(fields) <= _START or not fields[_START].isdigit():
        return None
    ended = fields[_STATE] in {"Z", "X"}
    return ProcessStatus(found[1], int(user[1]), int(fields[_START]), ended, kib_lines(status))


def process_state(stat: str) -> str:
    """The state that /proc/PID/stat says, one letter (proc_pid_stat(5)); empty for what is no such file."""
    found = _STAT.match(stat)
    fields = found[2].split() if found else []
    return fields[_STATE] if fields else ""


_UNIT = re.compile(
    r"^(?:0:|[0-9]+:name=systemd):/(?:[^/\n]+\.slice/)*([A-Za-z0-9@._:-]{1,255}\.service)(?:/|$)",
    re.MULTILINE,
)


def system_unit(cgroup: str) -> str:
    """The service of the system's systemd that /proc/PID/cgroup names; empty where there is none."""
    found = _UNIT.search(cgroup)
    return found[1] if found and not found[1].startswith("user@") else ""


_CGROUPS: Final = "/sys/fs/cgroup"
_CGROUP = re.compile(r"^([0-9]+):([^:\n]*):(/.*)$", re.MULTILINE)  # cgroups(7), /proc/PID/cgroup


@dataclass(frozen=True)
class MemoryCgroup:
    """The cgroup that counts a process's memory. `path` is below the mount, and empty where it is outside of
    those that are to be seen from here; `v1`: of the hierarchy of the memory controller alone."""

    path: str
    v1: bool

    @property
    def events(self) -> str:
        """The file that counts its OOM kills; the root of v2 has none."""
        path = self.path.rstrip("/")
        if self.v1:
            return f"{_CGROUPS}/memory{path}/memory.oom_control"
        return f"{_CGROUPS}{path}/memory.events"


def memory_cgroup(cgroup: str) -> MemoryCgroup:
    """By /proc/PID/cgroup."""
    lines = _CGROUP.findall(cgroup)
    v1 = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    path = unified_cgroup(cgroup) if v1 is None else v1
    return MemoryCgroup("" if "/../" in f"{path}/" else path, v1 is not None)


def unified_cgroup(cgroup: str) -> str:
    """The path in the unified hierarchy (v2) that /proc/PID/cgroup names; empty where there is none."""
    return next((line[3] for line in _CGROUP.finditer(cgroup) if line[1] == "0"), "")


_CAPABILITIES = re.compile(r"^CapEff:\t([0-9a-f]{1,16})$", re.MULTILINE)
_CAP_SYS_PTRACE = 19  # include/uapi/linux/capability.h


def may_trace(status: str) -> bool:
    """Whether /proc/PID/status is of a process that may read the memory maps of other users' processes."""
    found = _CAPABILITIES.search(status)
    return bool(found and int(found[1], 16) >> _CAP_SYS_PTRACE & 1)


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
    if start := _START_PFN.match(line):
        return replace(zone, start_pfn=int(start[1]))
    return zone


def system_ram(iomem: str) -> Iterator[tuple[int, int]]:
    """Whole page frames (first, after the last) of each range of RAM in /proc/iomem, as root reads it."""
    for line in iomem.splitlines():
        if ram := _RAM.match(line):
            first, end = -(-int(ram[1], 16) // PAGE_BYTES), (int(ram[2], 16) + 1) // PAGE_BYTES
            if first < end:
                yield first, end

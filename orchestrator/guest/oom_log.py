"""Who was killed when memory ran out, and with what: lines of a kernel's log.

A guest's log may be anything: numbers are bounded, and so is how many lines are taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.units import KIB, format_size

KILLED: Final = "Killed process "
"""What each such line has in it."""
_MOST_KILLS: Final = 50

# __oom_kill_process(), mm/oom_kill.c. UID and pgtables are printed since 5.4, comm has up to 15 characters of
# any kind (TASK_COMM_LEN).
_LINE: Final = re.compile(
    r"""^(?:\[\ *(?P<seconds>[0-9]{1,10}\.[0-9]{6})\]\ )?
    (?:(?P<cgroup>Memory\ cgroup\ out\ of\ memory)|Out\ of\ memory(?:\ \(oom_kill_allocating_task\))?):
    \ Killed\ process\ (?P<pid>[0-9]{1,10})\ \((?P<comm>.{0,63}?)\)
    \ total-vm:(?P<total>[0-9]{1,15})kB,\ anon-rss:(?P<anon>[0-9]{1,15})kB
    ,\ file-rss:(?P<file>[0-9]{1,15})kB,\ shmem-rss:(?P<shmem>[0-9]{1,15})kB
    (?:,\ UID:[0-9]{1,10}\ pgtables:(?P<tables>[0-9]{1,15})kB
    \ oom_score_adj:(?P<adjusted>-?[0-9]{1,4}))?\s*$""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class OomKill:
    """A process that an OOM killer ended, as it was then. `out_of` says whose memory had run out: the whole
    machine's, or that of a cgroup.

    `uptime_seconds` is the kernel's own time, None where the line has none. Kernels before 5.4 do not have
    the last two.
    """

    pid: int
    comm: str
    out_of: Literal["memory", "cgroup"]
    uptime_seconds: float | None
    total_vm_bytes: int
    anon_rss_bytes: int
    file_rss_bytes: int
    shmem_rss_bytes: int
    page_table_bytes: int | None = None
    oom_score_adj: int | None = None


def find_kills(text: str) -> tuple[OomKill, ...]:
    """The first kills that a kernel's log tells of, in its order."""
    lines = (_LINE.match(line) for line in text.splitlines() if KILLED in line)
    return tuple(_kill(line) for line in lines if line)[:_MOST_KILLS]


def in_words(kill: OomKill) -> str:
    """A kill, as a step says it."""
    memory = f"{format_size(kill.anon_rss_bytes)} of anonymous memory"
    if kill.page_table_bytes is not None:
        memory = f"{format_size(kill.page_table_bytes)} of page tables and {memory}"
    return f"the OOM killer ended {kill.comm}, with {memory}"


def _kill(line: re.Match[str]) -> OomKill:
    def size(name: str) -> int:
        return int(line[name]) * KIB

    return OomKill(
        pid=int(line["pid"]),
        comm=line["comm"],
        out_of="cgroup" if line["cgroup"] else "memory",
        uptime_seconds=float(line["seconds"]) if line["seconds"] else None,
        total_vm_bytes=size("total"),
        anon_rss_bytes=size("anon"),
        file_rss_bytes=size("file"),
        shmem_rss_bytes=size("shmem"),
        page_table_bytes=size("tables") if line["tables"] else None,
        oom_score_adj=int(line["adjusted"]) if line["adjusted"] else None,
    )

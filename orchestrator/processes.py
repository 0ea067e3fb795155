"""Which process is which: a process id alone is given away again once its process has ended.

A process is named by its id, the boot, and its start in clock ticks since that boot (proc(5),
/proc/PID/stat, field 22). All three stay as they are when somebody sets the clock.
"""

from __future__ import annotations

from pathlib import Path

# Places in /proc/PID/stat behind the name, which stands in parentheses and may contain anything.
_STATE = 0
_START = 19


def boot_id() -> str:
    """Identity of this boot of the machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since the boot; None if it has ended.

    A zombie has ended: it holds nothing, and reaping it is its parent's business.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in {"Z", "X"} else int(fields[_START])


def lives(pid: int, ticks: int, boot: str) -> bool:
    """Whether the process that began `ticks` after the boot `boot` still runs."""
    return boot == boot_id() and started_ticks(pid) == ticks

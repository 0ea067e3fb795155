"""Which process is which: a process id alone is given away again once its process has ended.

A process is named by its id, the boot, and its start in clock ticks since that boot (proc(5),
/proc/PID/stat, field 22). All three stay as they are when somebody sets the clock.

Nothing else in the project sends a signal to a process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
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


def is_alive(pid: int, ticks: int, boot: str) -> bool:
    """Whether the process that began `ticks` after the boot `boot` still runs."""
    return boot == boot_id() and started_ticks(pid) == ticks


def send_signal(pid: int, ticks: int, number: signal.Signals) -> bool:
    """Signal the process that began `ticks` after this boot; False if it has ended, or is another user's.

    The process is looked at behind a descriptor of it (pidfd_open(2)): should the id be given to another
    in between, the signal reaches no process.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return False
    try:
        if started_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill a child of ours that leads a process group, and the others in it.

    A child that was not waited for keeps its id, and with it the group's. Raises ValueError if it leads none.
    """
    if leader.returncode is not None:
        return  # it was waited for: the id may be another's by now
    with suppress(ProcessLookupError):
        if os.getpgid(leader.pid) != leader.pid:
            raise ValueError(f"process {leader.pid} leads no process group")
        os.killpg(leader.pid, signal.SIGKILL)

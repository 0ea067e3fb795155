"""Huge pages made of ranges of another process's memory, from outside; contents stay.

Sent to other hosts with `orchestrator.host.reader`: Python's standard library and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.host.pagemap import IS_PRESENT, IS_ZERO, PAGE, Scanner

# process_madvise(2), since Linux 5.10; MADV_COLLAPSE, since 6.1 (include/uapi/asm-generic/). On another
# process's memory it may act for who has CAP_SYS_NICE and may trace that one.
_PROCESS_MADVISE, _MADV_COLLAPSE = 440, 25
_RANGE = 2 << 20
_PAGES = _RANGE // PAGE
_STARTED = 19  # in /proc/PID/stat, behind the name


class Identity(NamedTuple):
    """Whose a process id is."""

    started_ticks: int
    """When the process began, since the boot."""
    user: int
    """As whom it acts."""
    same_namespace: bool
    """Whether it is in the pid namespace of whoever asks; else it is a container's."""
    ours: bool
    """Whether who asks is that user, or root."""


def identity(pid: int) -> Identity:
    """Whose a process id is. Raises OSError where it is no process's, or must not be looked at."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    status = pathlib.Path(f"/proc/{pid}/status").read_text(errors="replace")
    user = int(re.findall(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)[0])
    theirs, own = (pathlib.Path(f"/proc/{one}/ns/pid").stat().st_ino for one in (pid, "self"))
    return Identity(int(stat[_STARTED]), user, theirs == own, os.geteuid() in {0, user})


class Collapsed(NamedTuple):
    """What became of ranges of 2 MiB that were to become huge pages."""

    done: int
    skipped: int
    """Fewer pages were there by then than are asked for, or there was no room to fill the rest."""
    filled_bytes: int
    """Pages that were not there, in the ranges that are done."""
    errors: dict[str, int]
    """How many met which errno: of MADV_COLLAPSE in madvise(2)."""


def collapse(
    pid: int, whose: Identity | Sequence[int], addresses: Sequence[int], min_present: int, room_bytes: int
) -> Collapsed:
    """Make huge pages of ranges of 2 MiB of a process that are at least `min_present` pages full.

    What is missing in them takes at most `room_bytes`: it is looked at right before. `whose` is the process's
    `identity` as it was when the ranges were chosen. Raises OSError: ESRCH where the id is another process's
    by now, EPERM where it is not ours to act on, ENOTTY where the kernel has no PAGEMAP_SCAN (before 6.7).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    done = skipped = filled = 0
    errors: dict[str, int] = {}
    process = os.pidfd_open(pid)  # who has it has the process, whatever becomes of the id
    try:
        with pathlib.Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
            now = identity(pid)
            if list(now) != list(whose):
                raise OSError(errno.ESRCH, f"process {pid} is another one by now")
            if not (now.same_namespace and now.ours):
                raise OSError(errno.EPERM, f"process {pid} is another user's, or in another pid namespace")
            scanner = Scanner(pagemap.fileno(), _PAGES)
            for address in addresses:
                present = _pages_with_memory(scanner, address)
                missing = _RANGE - present * PAGE
                if present < min_present or missing > room_bytes - filled:
                    skipped += 1
                    continue
                vector = struct.pack("2Q", address, _RANGE)
                # A call for each: mmap_lock is free in between, and one that fails keeps no other from it.
                advised = libc.syscall(
                    ctypes.c_long(_PROCESS_MADVISE), process, vector, ctypes.c_size_t(1), _MADV_COLLAPSE, 0
                )
                if advised == _RANGE:
                    done, filled = done + 1, filled + missing
                else:
                    why = str(ctypes.get_errno())
                    errors[why] = errors.get(why, 0) + 1
    finally:
        os.close(process)
    return Collapsed(done, skipped, filled, errors)


def _pages_with_memory(scanner: Scanner, address: int) -> int:
    """How many pages of a range of 2 MiB are present and not the zero page."""
    size, place, end = 0, address, address + _RANGE
    while place < end:
        regions, place = scanner.scan(place, end)
        for start, stop, what in zip(regions[::3], regions[1::3], regions[2::3]):  # noqa: B905  # since 3.10
            size += stop - start if what & (IS_PRESENT | IS_ZERO) == IS_PRESENT else 0
    return size // PAGE

"""Hardware counters of a guest while it runs in guest mode, by perf_event_open(2).

The same counters as `perf stat -e EVENT:G --per-thread -p QEMU` has, without its process: file descriptors of
whoever asks, which the kernel closes with it, so that nothing stays behind on any host.

Sent to other hosts with `orchestrator.host.reader`: Python's standard library and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pathlib
import platform
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.host.collapse import identity

# include/uapi/linux/perf_event.h: perf_event_attr as of its first version, and two of its flags.
_ATTR = struct.Struct("=IIQQQQQIIQ")
_TOTAL_TIMES = 1 | 2  # PERF_FORMAT_TOTAL_TIME_ENABLED, and _RUNNING
_EXCLUDE_HOST = 1 << 19
_CLOEXEC = 8
_ANY_CPU, _NO_GROUP = -1, -1
_COUNTED = struct.Struct("=QQQ")
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_MOST_THREADS = 1024
_VCPU = re.compile(r"CPU \d+/KVM")  # kvm_start_vcpu_thread() of QEMU names them, if it is asked to

# By QEMU, when it began, thread and events: a file descriptor for each event, or -errno.
_opened: dict[tuple[int, int, int, tuple[tuple[int, int], ...]], list[int]] = {}


def guest_counters(pid: int, events: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Each of `events`, (type, config) of perf_event_attr, summed over the vCPUs of the QEMU `pid`.

    They count from the first call on that has the same events. `vcpus` is how many vCPUs there are; `counts`
    has [count, time enabled, time running] for each event, times in nanoseconds, or the errno alone. Raises
    OSError where the process is not there.
    """
    started = identity(pid).started_ticks
    wanted = tuple((int(kind), int(config)) for kind, config in events)
    _close_others(pid, started, wanted)
    for thread in _vcpus(pid):
        key = (pid, started, thread, wanted)
        if key not in _opened and len(_opened) < _MOST_THREADS:
            _opened[key] = [_open(thread, kind, config) for kind, config in wanted]
    found = [files for key, files in _opened.items() if key[:2] == (pid, started)]
    counts = [_summed([files[place] for files in found]) for place in range(len(wanted))]
    return {"vcpus": len(found), "counts": counts if found else []}


def _close_others(pid: int, started: int, wanted: tuple[tuple[int, int], ...]) -> None:
    """Close what was counted of another QEMU that has ended, or of this one with other events."""
    for key in list(_opened):
        if key[0] == pid:
            stays = (key[1], key[3]) == (started, wanted)
        else:
            try:
                stays = identity(key[0]).started_ticks == key[1]
            except OSError:
                stays = False
        if not stays:
            for file in _opened.pop(key):
                if file >= 0:
                    os.close(file)


def _vcpus(pid: int) -> Iterator[int]:
    for folder in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if _VCPU.fullmatch((folder / "comm").read_text(errors="replace").strip()):
                yield int(folder.name)


def _open(thread: int, kind: int, config: int) -> int:
    """A file descriptor that counts an event of a thread in guest mode, or -errno."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    attr = _ATTR.pack(kind, _ATTR.size, config, 0, 0, _TOTAL_TIMES, _EXCLUDE_HOST, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    file = libc.syscall(number, ctypes.c_char_p(attr), thread, _ANY_CPU, _NO_GROUP, _CLOEXEC)
    return int(file) if file >= 0 else -ctypes.get_errno()


def _summed(files: Sequence[int]) -> list[int]:
    """[count, enabled, running] over all threads, or [errno] of the first that has none."""
    sums = [0, 0, 0]
    for file in files:
        if file < 0:
            return [-file]
        read = os.read(file, _COUNTED.size)
        if len(read) != _COUNTED.size:
            return [errno.EIO]
        counted = _COUNTED.unpack(read)
        sums = [sums[place] + counted[place] for place in range(len(sums))]
    return sums

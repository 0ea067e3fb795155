"""Reaping what libvirt starts, where no other process does so in time.

QEMU and passt make themselves daemons. Their parent is then process 1, and in a container that may be a
program that reaps late (1.4 s were seen) or never. libvirt takes a process for alive for as long as its
pid is there, a zombie's too: it waits, and gives up after 15 s and more (virProcessKillPainfullyDelay() in
src/util/virprocess.c). So this process becomes the parent of its orphans, and reaps those.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from functools import cache

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_LOOK_SECONDS = 0.05
_DAEMONS = ("qemu-system-", "passt")
_MOST_STATUSES = 64  # of guests that ended just now: who asks does so at once

# Of the daemons that were reaped, by pid: as subprocess has it, -N for signal N. The oldest go first.
_statuses: dict[int, int] = {}
_adopting = threading.Event()
_reaping = threading.Lock()  # how a process ended is noted before it is asked for


@cache
def adopt_orphans() -> None:
    """Become the parent of what libvirt starts, for as long as this process lives."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        _adopting.set()
        threading.Thread(target=_reap_for_ever, name="reaping daemons", daemon=True).start()


def _reap_for_ever() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with suppress(ChildProcessError):  # there are no children at all
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _reap()


def _reap() -> None:
    """Reap the daemons that ended.

    A QEMU that this program starts itself, as to try KVM, stays in the session of this process and is
    left to who waits for its exit code; a daemon has begun another (setsid(2)).
    """
    for child in psutil.Process().children():
        with _reaping, suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            if child.name().startswith(_DAEMONS) and os.getsid(child.pid) != os.getsid(0):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    _keep(pid, os.waitstatus_to_exitcode(status))


def reap(pid: int) -> None:
    """Reap an orphan that has ended, if it is ours; not for what `subprocess` waits for."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def children() -> set[int]:
    """Ids of this process's children, of orphans that it has adopted as well."""
    return {child.pid for child in psutil.Process().children()}


def zombies(name: str) -> set[int]:
    """Those of them that are called so, and have ended without being reaped."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE and child.name() == name:
                found.add(child.pid)
    return found


def _keep(pid: int, status: int) -> None:
    _statuses.pop(pid, None)  # the id may have been another's
    _statuses[pid] = status
    while len(_statuses) > _MOST_STATUSES:
        _statuses.pop(next(iter(_statuses)))


def exit_status(pid: int) -> int | None:
    """Of a QEMU or passt that ended here, -N for signal N; None where it is no child of this process."""
    if _adopting.is_set():
        with suppress(psutil.Error, OSError):  # it may have ended since the last look
            _reap()
    return _statuses.get(pid)

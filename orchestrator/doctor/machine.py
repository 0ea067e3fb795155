"""The machine itself: processors, memory, disk, rights."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from orchestrator.doctor.check import CheckResult, Level, Subject
from orchestrator.host.cpu import cpu_model
from orchestrator.host.runtime import leftovers
from orchestrator.processes import send_signal, started_ticks
from orchestrator.units import GIB, format_size

# A guest of the quickstart scenario has 1 GiB and virtio-mem beside it; an image takes 2 GiB and
# while it is built as much again.
MEMORY_BAD_BYTES = 2 * GIB
MEMORY_NOTE_BYTES = 4 * GIB
DISK_BAD_BYTES = 4 * GIB

_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def cpu(_subject: Subject) -> CheckResult:
    """Model and number of logical CPUs."""
    return CheckResult(Level.OK, f"{os.cpu_count()} x {cpu_model()}")


def memory(_subject: Subject) -> CheckResult:
    """MemAvailable against what a small guest needs."""
    available = psutil.virtual_memory().available
    found = f"{format_size(available)} available"
    if available < MEMORY_BAD_BYTES:
        return CheckResult(Level.BAD, found, f"end something: a guest needs {format_size(MEMORY_BAD_BYTES)}")
    if available < MEMORY_NOTE_BYTES:
        return CheckResult(Level.NOTE, f"{found}: enough for one small guest")
    return CheckResult(Level.OK, found)


def disk(place: str, folder: Callable[[Subject], Path]) -> Callable[[Subject], CheckResult]:
    """A check of the free space where `folder` is or will be; `place` says how to choose another."""
    return partial(_disk, place, folder)


def _disk(place: str, folder: Callable[[Subject], Path], subject: Subject) -> CheckResult:
    wanted = folder(subject).absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.is_dir())
    free = psutil.disk_usage(str(there)).free
    found = f"{format_size(free)} free for {wanted}"
    if not os.access(there, os.W_OK | os.X_OK):  # faccessat(2) says so of what is mounted read-only, too
        return CheckResult(Level.BAD, f"{there} cannot be written", f"choose another: {place}")
    if free < DISK_BAD_BYTES:
        return CheckResult(
            Level.BAD, found, f"free {format_size(DISK_BAD_BYTES)} there, or choose another: {place}"
        )
    return CheckResult(Level.OK, found)


def rights(_subject: Subject) -> CheckResult:
    """Who we are, and whether KVM's device would open."""
    who = "root" if os.geteuid() == 0 else f"user {_user_name()}"
    device = Path("/dev/kvm")
    if not device.exists():
        return CheckResult(Level.OK, f"{who}; there is no /dev/kvm")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return CheckResult(
            Level.NOTE,
            f"{who}; /dev/kvm is not yours to open",
            f"sudo adduser {_user_name()} kvm   and log in again",
        )
    except OSError as error:
        return CheckResult(
            Level.NOTE, f"{who}; /dev/kvm does not open: {error.strerror}", "dmesg | grep -i kvm"
        )
    return CheckResult(Level.OK, f"{who}; /dev/kvm opens")


def guest_memory(_subject: Subject) -> CheckResult:
    """Whether the memory of a QEMU of ours could be read, tried on a process that is ours as it would be.

    Yama lets a process read its descendants; libvirt detaches QEMU, so QEMU is none.
    """
    with _detached_process() as pid:
        for name, loss in (("mem", "page tables cannot be read"), ("pagemap", "nor what is backed")):
            try:
                with Path(f"/proc/{pid}/{name}").open("rb", buffering=0):
                    pass
            except PermissionError:
                scope = _YAMA.read_text().strip() if _YAMA.exists() else "absent"
                return CheckResult(
                    Level.BAD,
                    f"/proc/PID/{name} of QEMU does not open: {loss} (yama ptrace_scope: {scope})",
                    "sudo sysctl kernel.yama.ptrace_scope=0   (or run as root)",
                )
    return CheckResult(Level.OK, "/proc/PID/mem and pagemap of a detached process open")


@contextmanager
def _detached_process() -> Iterator[int]:
    """A process of ours that is no descendant of ours: its parent has ended."""
    # The shell's only job is to die first.
    argv = ["sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!"]
    pid = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    began = started_ticks(pid)
    try:
        yield pid
    finally:
        if began is not None:
            send_signal(pid, began, signal.SIGKILL)


def huge_pages(_subject: Subject) -> CheckResult:
    """The host's THP mode, which decides how many second-level tables guest memory needs."""
    try:
        modes = _THP.read_text().split()
    except FileNotFoundError:
        return CheckResult(Level.OK, "not in this kernel")
    mode = next((mode.strip("[]") for mode in modes if mode.startswith("[")), None)
    return CheckResult(Level.OK, mode) if mode else CheckResult(Level.UNKNOWN, f"{_THP} names no mode")


def killed_runs(_subject: Subject) -> CheckResult:
    """What killed runs left behind."""
    found = leftovers()
    if not found:
        return CheckResult(Level.OK, "nothing to clean")
    processes = sum(len(leftover.processes) for leftover in found)
    return CheckResult(
        Level.NOTE,
        f"killed runs: {len(found)}; still running from them: {processes} processes",
        "orchestrator clean",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number
        return str(os.geteuid())

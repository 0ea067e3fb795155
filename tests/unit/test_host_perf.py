"""Counters in guest mode: the real system call, on a thread named as a vCPU; and each reason for none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import MACHINE, FakeDomain

from orchestrator.host import perf_counters
from orchestrator.host.perf_counters import guest_counters
from orchestrator.host.shell import HostShell
from orchestrator.observation import Reading
from orchestrator.probes import PROBES, HostView
from orchestrator.probes import host_perf as module

PMU, CPUINFO = "/sys/bus/event_source/devices/cpu/type", "/proc/cpuinfo"
PARANOID = "/proc/sys/kernel/perf_event_paranoid"
SKYLAKE = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: a Xeon\n"
ZEN = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n"
WITH_PMU = {PMU: "4\n", CPUINFO: SKYLAKE, PARANOID: "2\n"}
SERIES = [one.name for one in PROBES["host_perf"].series]

# PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS: counted without a PMU, guest mode or not.
FAULTS = (1, 2)
NO_TYPE = (1000, 0)
PAGES = 500
_VCPU = """\
import ctypes, mmap, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)  # PR_SET_NAME
print("named", flush=True)
for line in sys.stdin:
    kept = mmap.mmap(-1, int(line) * mmap.PAGESIZE)
    kept.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(kept), mmap.PAGESIZE):
        kept[at] = 1
    print("touched", flush=True)
"""


class Child:
    """A process whose only thread has a name, and touches pages when it is asked to."""

    def __init__(self, name: str) -> None:
        argv = [sys.executable, "-c", _VCPU, name]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.says("named")

    def says(self, words: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == f"{words}\n"

    def touch(self, pages: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{pages}\n")
        self.process.stdin.flush()
        self.says("touched")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def start(name: str) -> Child:
        children.append(Child(name))
        return children[-1]

    yield start
    for one in children:
        one.end()
    guest_counters(os.getpid(), [])  # closes what was counted of them


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def may_count() -> bool:
    """Whether the kernel must let us count: else it may refuse, which is another test."""
    return os.geteuid() == 0


def test_a_vcpu_is_counted_from_the_first_call_on(child: Callable[[str], Child]) -> None:
    vcpu = child("CPU 0/KVM")
    first = guest_counters(vcpu.process.pid, [FAULTS, NO_TYPE])
    assert first["vcpus"] == 1
    faults, other = first["counts"]
    assert other == [errno.ENOENT], "a kind of event that there is not"
    if not may_count() and len(faults) == 1:
        assert faults in ([errno.EACCES], [errno.EPERM])
        return
    vcpu.touch(PAGES)
    (count, enabled, running), _ = guest_counters(vcpu.process.pid, [FAULTS, NO_TYPE])["counts"]
    assert PAGES <= count - faults[0] < 2 * PAGES
    assert enabled == running > 0


def test_other_threads_are_not_counted(child: Callable[[str], Child]) -> None:
    assert guest_counters(child("CPU 0/TCG").process.pid, [FAULTS]) == {"vcpus": 0, "counts": []}


def test_files_of_one_that_has_ended_are_closed(child: Callable[[str], Child]) -> None:
    before = files()
    vcpu = child("CPU 0/KVM")
    pipes = files() - before
    for _ in range(3):
        guest_counters(vcpu.process.pid, [FAULTS, FAULTS])
    if may_count():
        assert files() == before + pipes + 2
    guest_counters(vcpu.process.pid, [FAULTS])  # other events: those of before are closed
    assert files() <= before + pipes + 1
    vcpu.process.kill()
    vcpu.process.wait()
    guest_counters(os.getpid(), [FAULTS])
    assert not [key for key in perf_counters._opened if key[0] == vcpu.process.pid]
    assert files() <= before + pipes


def test_one_that_is_not_there_is_an_error(child: Callable[[str], Child]) -> None:
    gone = child("CPU 0/KVM")
    gone.end()
    with pytest.raises(OSError, match="No such"):
        guest_counters(gone.process.pid, [FAULTS])


# The probe


def answering(
    texts: Mapping[str, str], counters: Callable[[list[list[int]]], Any]
) -> tuple[HostShell, list[str]]:
    """A host with these files, whose counters say what `counters` does of events; and what it was asked."""
    asked: list[str] = []

    def call(name: str, *words: Any, **_: object) -> Any:
        asked.append(name)
        if name == "texts":
            return {path: texts[path] for path in words[0] if path in texts}
        assert name == "guest_counters"
        return counters(words[1])

    return HostShell(call), asked


def read(shell: HostShell, accel: str = "kvm", times: int = 1) -> dict[str, Reading]:
    probe = PROBES["host_perf"]()
    view = HostView(FakeDomain(pid=7, shell=shell), MACHINE, accel)
    for _ in range(times):
        found = list(probe.from_host(view))
    assert [one.name for one in found] == SERIES
    PROBES["host_perf"].observe("host_perf", 0, "t", found)
    return {one.name: one for one in found}


def gaps(found: dict[str, Reading]) -> set[str]:
    assert all(one.value is None for one in found.values())
    return {one.gap for one in found.values()}


def each(*counted: int) -> Callable[[list[list[int]]], Any]:
    return lambda events: {"vcpus": 2, "counts": [list(counted) for _ in events]}


def test_what_was_counted_is_read() -> None:
    shell, _ = answering(
        WITH_PMU, lambda events: {"vcpus": 2, "counts": [[config, 9, 9] for _, config in events]}
    )
    found = read(shell)
    assert {name: one.value for name, one in found.items()} == {
        "cycles": 0,
        "instructions": 1,
        "dtlb_load_misses": 0x10003,
        "dtlb_store_misses": 0x10103,
        "page_walk_cycles": 0x1001008,  # event=0x08, umask=0x10, cmask=1
        "ept_walk_cycles": 0x104F,  # event=0x4f, umask=0x10
    }


def test_a_cpu_without_an_event_for_walks_has_the_others() -> None:
    found = read(answering({**WITH_PMU, CPUINFO: ZEN}, each(5, 9, 9))[0])
    without = {name for name, one in found.items() if one.value is None}
    assert without == {"page_walk_cycles", "ept_walk_cycles"}
    assert all("listed for this CPU" in found[name].gap for name in without)


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        ((5, 9, 8), "a part"),
        ((errno.EACCES,), "perf_event_paranoid is 2"),
        ((errno.EPERM,), "CAP_PERFMON"),
        ((errno.ENOENT,), "no such event"),
        ((errno.EMFILE,), "Too many open files"),
        ((errno.ENOSYS,), "not implemented"),
    ],
)
def test_what_cannot_be_counted_is_a_gap_with_its_reason(counted: tuple[int, ...], words: str) -> None:
    (gap,) = gaps(read(answering(WITH_PMU, each(*counted))[0]))
    assert words in gap


def test_without_a_vcpu_there_is_a_gap() -> None:
    found = read(answering(WITH_PMU, lambda _: {"vcpus": 0, "counts": []})[0])
    assert gaps(found) == {module.NO_VCPU}


def test_where_there_is_nothing_to_read_nothing_is_asked_again() -> None:
    shell, asked = answering({CPUINFO: SKYLAKE}, each(1, 1, 1))
    assert gaps(read(shell, times=3)) == {module.NO_PMU}
    assert asked == ["texts"]
    for accel in ("tcg", "tcg-icount"):
        shell, asked = answering(WITH_PMU, each(1, 1, 1))
        assert gaps(read(shell, accel, times=3)) == {module.EMULATED}
        assert asked == []


def test_this_machine_says_what_is_true_of_it(child: Callable[[str], Child]) -> None:
    """By the real reader: with a PMU counts of a thread that is never in guest mode, or none, and why."""
    vcpu = child("CPU 0/KVM")
    probe = PROBES["host_perf"]()
    view = HostView(FakeDomain(pid=vcpu.process.pid), MACHINE, "kvm")
    found = {one.name: one for one in probe.from_host(view)}
    if not Path(PMU).exists():
        assert gaps(found) == {module.NO_PMU}
    elif may_count():
        assert found["cycles"].value == 0, found["cycles"].gap
    else:
        assert all(one.gap or one.value == 0 for one in found.values())

"""`collapse` on a real process: its ranges become huge pages, and what is in them stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import Clock, FakeDomain

from orchestrator import deadline as deadline_module
from orchestrator.host import collapse, reader
from orchestrator.host.domain import QemuProcess
from orchestrator.host.qemu_process import Segment, status_bytes
from orchestrator.host.shell import HostShell
from orchestrator.levers import LEVERS, LeverTarget, Pulled
from orchestrator.levers.memory import GuestMemory
from orchestrator.procfs import MEMINFO, MEMORY_PRESSURE, kib_lines
from orchestrator.records.step import StepOutcome
from orchestrator.units import GIB, KIB, MIB, PAGE_BYTES, PMD_BYTES

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    not THP.exists() or "[always]" in THP.read_text() or os.geteuid() != 0,
    reason="needs CAP_SYS_NICE, and a kernel with huge pages that does not give them by itself",
)

# Writes that many pages of a range of 2 MiB for each of argv[1:], and says where the first range is. For each
# line it then prints the hash of them all.
_PROCESS = """
import ctypes, hashlib, mmap, random, sys
counts = [int(word) for word in sys.argv[1:]]
size = 2 << 20
memory = mmap.mmap(-1, (len(counts) + 1) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
first = -begin % size
fill = random.Random(7)
for number, count in enumerate(counts):
    for page in range(count):
        place = first + number * size + page * 4096
        memory[place : place + 4096] = fill.randbytes(4096)
print(begin + first, flush=True)
for line in sys.stdin:
    there = hashlib.sha256()
    for number, count in enumerate(counts):
        place = first + number * size
        there.update(memory[place : place + count * 4096])
    print(there.hexdigest(), flush=True)
"""


@dataclass(frozen=True)
class Process:
    """A process with ranges, which a lever takes for the memory of a VM."""

    popen: subprocess.Popen[str]
    address: int
    ranges: int

    def contents(self) -> str:
        """Hash of what it wrote, as it reads it now."""
        assert self.popen.stdin
        assert self.popen.stdout
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def target(self, shell: HostShell) -> LeverTarget:
        domain = FakeDomain(pid=self.popen.pid, shell=shell)
        return LeverTarget(
            domain,
            domain.qemu,
            (Segment(4 * GIB, self.address, self.ranges * PMD_BYTES),),
            Path("/nowhere"),
            lambda _: None,
        )

    def huge_bytes(self) -> int:
        """AnonHugePages of the kernel's own count, which no lever reads."""
        rollup = Path(f"/proc/{self.popen.pid}/smaps_rollup").read_text()
        return kib_lines(rollup)["AnonHugePages"]


@contextmanager
def process(*pages: int) -> Iterator[Process]:
    """With so many pages of each range."""
    argv = [sys.executable, "-c", _PROCESS, *map(str, pages)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdout
        try:
            yield Process(popen, int(popen.stdout.readline()), len(pages))
        finally:
            popen.kill()


def pulled(target: LeverTarget, **parameters: Any) -> Pulled:
    return LEVERS["collapse"].model_validate({"leave_available": "0B", **parameters}).pull(target)


def test_nearly_full_ranges_become_huge_pages_and_keep_their_contents(shell: HostShell) -> None:
    with process(490, 490, 300, 512) as one:
        before, resident = one.contents(), status_bytes(one.target(shell).qemu)["VmRSS"]
        assert one.huge_bytes() == 0, "or there is nothing to do"
        predicted = LEVERS["collapse"]().predict(one.target(shell), None)
        came = pulled(one.target(shell))
        assert came.outcome is StepOutcome.DONE
        assert came.values == {
            "ranges_asked": 3,
            "ranges_collapsed": 3,
            "ranges_skipped": 0,
            "ranges_failed": 0,
            "filled_bytes": 2 * 22 * PAGE_BYTES,
        }
        assert came.message == ""
        assert one.huge_bytes() == 3 * PMD_BYTES
        grown = status_bytes(one.target(shell).qemu)["VmRSS"] - resident
        # VmRSS is summed up of counters per CPU, each up to some pages behind (percpu_counter, mm/memory.c).
        assert grown == pytest.approx(2 * 22 * PAGE_BYTES, abs=64 * PAGE_BYTES)
        assert one.contents() == before
        assert (predicted.ranges, predicted.takes_at_most) == (3, 2 * 22 * PAGE_BYTES)
        assert pulled(one.target(shell)).values["ranges_asked"] == 0, "huge ones are not asked for again"


def test_growth_is_bounded_and_the_fullest_come_first() -> None:
    with process(480, 510, 500, 490) as one:
        room = (2 + 12) * PAGE_BYTES
        came = pulled(one.target(HostShell()), max_growth=f"{room}B")
        assert (came.values["ranges_collapsed"], came.values["filled_bytes"]) == (2, room)
        assert one.huge_bytes() == 2 * PMD_BYTES
        left = one.target(HostShell()).memory.ranges
        assert sorted(range_.present for range_ in left) == [480, 490]


def test_what_is_given_back_meanwhile_is_not_filled_again() -> None:
    with process(500, 500) as one:
        target = one.target(HostShell())
        addresses = [found.address for found in target.memory.candidates(480, MIB)]
        pid, whose = one.popen.pid, target.identity
        assert HostShell().collapse(pid, whose, addresses, 501, MIB) == (0, 2, 0, {})
        assert HostShell().collapse(pid, whose, addresses, 480, 11 * PAGE_BYTES) == (0, 2, 0, {})
        assert HostShell().collapse(pid, whose, addresses, 480, 12 * PAGE_BYTES) == (
            1,
            1,
            12 * PAGE_BYTES,
            {},
        )


def test_ranges_that_are_not_there_are_counted_by_errno() -> None:
    with process(500) as one:
        target = one.target(HostShell())
        beyond = 1 << 46
        came = HostShell().collapse(one.popen.pid, target.identity, [beyond, one.address], 0, GIB)
        assert (came.done, came.errors) == (1, {"12": 1}), "ENOMEM: madvise(2), addresses that are not mapped"


def test_time_ends_it_between_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.install(monkeypatch, deadline_module)
    with process(*[500] * 40) as one:
        target = one.target(HostShell())

        def late(seconds: float) -> None:
            clock.sleep(6)

        came = pulled(
            LeverTarget(target.domain, target.qemu, target.segments, target.runtime, late), timeout="10s"
        )
        assert came.outcome is StepOutcome.PARTIAL
        assert (came.values["ranges_asked"], came.values["ranges_collapsed"]) == (40, 32)
        assert came.message == "the time of 10 s is over"
        assert one.huge_bytes() == 32 * PMD_BYTES


def saying(**files: str) -> HostShell:
    """This machine, which says something else of itself."""
    paths = {"meminfo": MEMINFO, "pressure": MEMORY_PRESSURE}

    def call(name: str, *words: Any, **_: object) -> object:
        if name == "texts" and {*words[0]} & {*paths.values()}:
            texts = {path: Path(path).read_text() for path in words[0] if Path(path).exists()}
            return texts | {paths[key]: text for key, text in files.items()}
        return reader.CALLS[name](*words)

    return HostShell(call)


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        (
            saying(meminfo="MemAvailable:  1000 kB\n"),
            "the host has 1000 KiB available, and 256 MiB are to be left",
        ),
        (saying(meminfo=""), "the host has an unknown amount available, and 256 MiB are to be left"),
        (
            saying(
                pressure="some avg10=10.01 avg60=0.00 avg300=0.00 total=1\n",
                meminfo=f"MemAvailable: {1 << 30} kB\n",
            ),
            "tasks of the host were stalled for memory for 10 % of the last 10 s",
        ),
    ],
)
def test_a_host_without_memory_to_spare_refuses(shell: HostShell, said: str) -> None:
    with process(500) as one:
        came = LEVERS["collapse"]().pull(one.target(shell))
        assert (came.outcome, came.message, came.values) == (StepOutcome.REFUSED, said, {})
        assert one.huge_bytes() == 0


def test_a_host_that_gets_short_of_memory_ends_it() -> None:
    turns = iter(["MemAvailable: 900000 kB", "MemAvailable: 900000 kB", "MemAvailable: 1 kB"])

    def call(name: str, *words: Any, **_: object) -> object:
        if name == "texts" and MEMINFO in words[0]:
            return {MEMINFO: next(turns)}
        return reader.CALLS[name](*words)

    with process(*[512] * 20) as one:
        came = LEVERS["collapse"]().pull(one.target(HostShell(call)))
        assert (came.outcome, came.values["ranges_collapsed"]) == (StepOutcome.PARTIAL, 16)
        assert came.message.startswith("the host has 1 KiB available")


def test_another_process_with_the_same_id_is_left_alone() -> None:
    with process(500) as one:
        now = collapse.identity(one.popen.pid)
        for other in (
            now._replace(started_ticks=now.started_ticks - 1),
            now._replace(user=65534),
        ):
            with pytest.raises(ProcessLookupError, match="is another one by now"):
                HostShell().collapse(one.popen.pid, other, [one.address], 480, MIB)
        assert one.huge_bytes() == 0


def test_a_process_that_has_ended_is_told() -> None:
    with process(500) as one:
        target = one.target(HostShell())
        assert target.identity
        assert target.memory
    came = pulled(target)
    assert (came.outcome, came.message) == (
        StepOutcome.REFUSED,
        "the VM's process has ended, or its id is another's",
    )


def test_anothers_vm_and_a_containers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with process(500) as one:
        for change in ({"ours": False}, {"same_namespace": False}):
            target = one.target(HostShell())
            identity = collapse.identity(one.popen.pid)._replace(**change)
            monkeypatch.setattr(collapse, "identity", lambda _, found=identity: found)
            monkeypatch.setitem(reader.CALLS, "identity", collapse.identity)
            came = pulled(target)
            assert came.outcome is StepOutcome.REFUSED
            assert came.message.startswith("the VM is another user's, or in a container")
            with pytest.raises(PermissionError):
                HostShell().collapse(one.popen.pid, identity, [one.address], 480, MIB)
            monkeypatch.undo()
        assert one.huge_bytes() == 0


def test_an_ordinary_user_may_not(tmp_path: Path) -> None:
    """By the kernel's own rules, in a process that has given up its rights."""
    with process(500) as one:
        script = (
            "import os, sys; from orchestrator.host import collapse\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: print(collapse.identity(int(sys.argv[1])))\n"
            "except OSError as error: print(error.errno)\n"
        )
        argv = [sys.executable, "-c", script, str(one.popen.pid)]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said == "13\n"


def test_a_container_is_seen() -> None:
    """A process in a pid namespace of its own."""
    argv = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        sys.executable,
        "-c",
        "print(1, flush=True); input()",
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        assert outer.stdout
        if not outer.stdout.readline():
            pytest.skip("no pid namespace may be made here")
        with suppress(ProcessLookupError):
            (inner,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            assert not collapse.identity(int(inner)).same_namespace
            assert collapse.identity(outer.pid).same_namespace
        outer.kill()


def test_ranges_and_what_they_need(shell: HostShell) -> None:
    with process(512, 511, 1, 0) as one:
        memory = GuestMemory.read(QemuProcess(one.popen.pid, shell), one.target(shell).segments)
        assert [found.present for found in memory.ranges] == [512, 511, 1]
        assert [found.address - one.address for found in memory.ranges] == [0, PMD_BYTES, 2 * PMD_BYTES]
        assert [found.guest_physical for found in memory.ranges] == [
            4 * GIB + number * PMD_BYTES for number in range(3)
        ]
        full = memory.candidates(480, MIB)
        assert memory.needed() - memory.needed(full) == len(full) * 4 * KIB == 8 * KIB


def test_a_segment_that_begins_within_a_range() -> None:
    with process(512, 512, 512) as one:
        segment = Segment(MIB, one.address + MIB, 2 * PMD_BYTES)
        memory = GuestMemory.read(QemuProcess(one.popen.pid), [segment])
        (whole,) = memory.ranges
        assert (whole.address, whole.guest_physical) == (one.address + PMD_BYTES, 2 * MIB)

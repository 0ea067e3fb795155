"""What an audit takes: of a machine with many processes, and of a process by its tables and its addresses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.deadline import Deadline, wait_for

AUDIT = (sys.executable, "-m", "orchestrator", "audit")
PROCESSES, VMS = 200, 4
WHOLE_SECONDS = 3.0
AUDITS = 10
WATCH_SECONDS, WATCH_SHARE = 30.0, 0.01  # of one core
TIB = 1 << 40
TABLES = (62_500, 250_000, 1_000_000)  # a million last-level tables are 4 GiB
_START_SECONDS = 120.0

# A process with 8 MiB of its own; and one that reads one page in so many equal parts of its addresses, which
# takes a table for each and no memory but that.
_ORDINARY = "import sys; kept = bytearray(8 << 20); print('ready', flush=True); sys.stdin.read()"
_SPARSE = """\
import mmap, sys
size, tables = int(sys.argv[1]), int(sys.argv[2])
kept = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
kept.madvise(mmap.MADV_NOHUGEPAGE)
step = size // tables >> 21 << 21
for table in range(tables):
    kept[table * step]
print('ready', flush=True)
sys.stdin.read()
"""


@contextmanager
def child(*words: str) -> Iterator[int]:
    """A Python process that runs `words` until it says that it is ready."""
    argv = [sys.executable, "-c", *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


@contextmanager
def qemu(name: str) -> Iterator[int]:
    """A QEMU without libvirt, with its firmware in 256 MiB."""
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-display", "none", "-name", f"guest={name}"]
    with subprocess.Popen(argv) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _has_begun(pid: int) -> bool | None:
    return psutil.Process(pid).memory_info().rss > 4 << 20 or None


def audit(*words: str) -> Any:
    """What `orchestrator audit` says as JSON."""
    return json.loads(subprocess.run([*AUDIT, "--json", *words], check=True, capture_output=True).stdout)


@pytest.fixture(scope="module")
def busy_machine() -> Iterator[set[int]]:
    """So many processes, and VMs."""
    with ExitStack() as stack:
        for _ in range(PROCESSES):
            stack.enter_context(child(_ORDINARY))
        pids = {stack.enter_context(qemu(f"bench-{number}")) for number in range(VMS)}
        for pid in pids:
            assert wait_for(partial(_has_begun, pid), Deadline(_START_SECONDS), every=0.2), "QEMU"
        yield pids


def test_a_machine_with_many_processes(benchmark: BenchmarkFixture, busy_machine: set[int]) -> None:
    """The whole command, with the start of Python."""
    found = benchmark.pedantic(audit, rounds=5)
    assert {vm["pid"] for vm in found["vms"]} >= busy_machine
    assert len(found["processes"]) + found["small_processes"] >= PROCESSES
    assert benchmark.stats is not None
    assert benchmark.stats.stats.median < WHOLE_SECONDS


def test_to_watch_it(benchmark: BenchmarkFixture, busy_machine: set[int], tmp_path: Path) -> None:
    """CPU time of one audit more, by the kernel's account of the process that watches."""

    def watched() -> float:
        argv = [*AUDIT, "--watch", "1s", "--openmetrics", str(tmp_path / "x.prom"), "--json"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            used = []
            for line in process.stdout:
                if line.startswith('  "when"'):
                    times = psutil.Process(process.pid).cpu_times()
                    used.append(times.user + times.system)
                if len(used) == AUDITS + 1:
                    process.terminate()
        return (used[-1] - used[0]) / AUDITS

    seconds = benchmark.pedantic(watched, rounds=1)
    benchmark.extra_info["cpu_seconds"] = seconds
    assert 0 < seconds < WATCH_SHARE * WATCH_SECONDS, len(busy_machine)


def seconds_for(tables: int, size: int) -> float:
    """CPU time of the reading of a process, the least of three."""
    with child(_SPARSE, str(size), str(tables)) as pid:
        taken: list[float] = []
        for _ in range(3):
            (one,) = audit("--pid", str(pid))["processes"]
            assert one["levels"]["pte"] >= tables
            assert one["virtual_bytes"] >= size
            taken.append(float(one["cpu_seconds"]))
    return min(taken)


def test_time_goes_with_tables(benchmark: BenchmarkFixture) -> None:
    found = benchmark.pedantic(lambda: [seconds_for(tables, 2 * TIB) for tables in TABLES], rounds=1)
    each = [taken / tables * 1e6 for taken, tables in zip(found, TABLES, strict=True)]
    benchmark.extra_info["microseconds_each_table"] = each
    assert max(each) < 2 * min(each)


def test_time_does_not_go_with_addresses(benchmark: BenchmarkFixture) -> None:
    tables = TABLES[1]
    few, many = benchmark.pedantic(lambda: [seconds_for(tables, size * TIB) for size in (1, 55)], rounds=1)
    benchmark.extra_info["seconds"] = [few, many]
    assert many < 2 * few

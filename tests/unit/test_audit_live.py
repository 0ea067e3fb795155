"""Audits of real processes, against what another reader of /proc/PID/pagemap counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import audit_child
import numpy as np
import pytest

from orchestrator.audit.process import ENDED, list_processes, read_listed, read_process
from orchestrator.audit.reading import Amount, Gap, ProcessReading
from orchestrator.deadline import Deadline
from orchestrator.host import page_tables, pagemap
from orchestrator.host.shell import HostShell

PAGE = 4096
SECONDS = 60.0
SPARSE = audit_child.SPARSE_GIB * 512 * PAGE  # bytes of last-level tables
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages")


@contextmanager
def child(*words: str) -> Iterator[int]:
    """A process that has done what the words say, and waits."""
    argv = [sys.executable, audit_child.__file__, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


def read(pid: int, shell: HostShell | None = None) -> ProcessReading:
    found = read_process(shell or HostShell(), pid, Deadline(SECONDS))
    assert isinstance(found, ProcessReading), found
    return found


def kib(pid: int, name: str, file: str = "status") -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def counted(pid: int) -> int:
    """Tables by pagemap read entry by entry, those of huge pages with them; bytes of all levels."""
    ranges: set[int] = set()
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(one, 16) for one in line.split()[0].split("-"))
            if end >> 63:
                continue  # [vsyscall]
            for place in range(start, end, 1 << 30):
                pages = (min(end, place + (1 << 30)) - place) // PAGE
                entries = np.frombuffer(
                    os.pread(file.fileno(), pages * 8, place // PAGE * 8), dtype=np.uint64
                )
                there = np.flatnonzero(entries >> np.uint64(62))
                ranges |= set(((there + place // PAGE) // 512).tolist())
    upper = len({one >> 9 for one in ranges}) + len({one >> 18 for one in ranges})
    return (len(ranges) + upper) * PAGE


def agrees(reading: ProcessReading, independent: int) -> None:
    """To 1 % and 8 tables, as the audit promises."""
    found = known(reading.needed) + known(reading.deposited)
    assert abs(found - independent) <= independent / 100 + 8 * PAGE
    assert reading.unused.value == max(0, reading.page_table_bytes - found)


def known(amount: Amount) -> int:
    assert amount.value is not None, amount.reason
    return amount.value


def test_what_was_touched_sparsely_is_needed(shell: HostShell) -> None:
    with child("sparse") as pid:
        reading = read(pid, shell)
        assert reading.page_table_bytes == kib(pid, "VmPTE")
        agrees(reading, counted(pid))
        assert known(reading.needed) >= SPARSE
        assert known(reading.unused) <= 8 * PAGE
        assert known(reading.sparse) >= SPARSE


def test_what_was_discarded_in_small_steps_maps_nothing(shell: HostShell) -> None:
    with child("discarded") as pid:
        reading = read(pid, shell)
        assert reading.page_table_bytes == kib(pid, "VmPTE") > SPARSE
        agrees(reading, counted(pid))
        assert SPARSE <= known(reading.unused) <= SPARSE * 1.01 + 8 * PAGE
        assert reading.comm == Path(f"/proc/{pid}/comm").read_text().strip()
        assert reading.resident_bytes == kib(pid, "VmRSS")


@pytest.mark.parametrize("word", ["discarded_at_once", "zero", "fragmented", "shared", "file"])
def test_other_memory(word: str) -> None:
    with child(word) as pid:
        reading = read(pid)
        assert reading.page_table_bytes == kib(pid, "VmPTE")
        agrees(reading, counted(pid))
        assert (known(reading.zero_only) >= 32 * PAGE) == (word == "zero")
        names = [one.name for one in reading.shared if one.needed_tables >= 32]
        assert names == (["/dev/zero (deleted)"] if word == "shared" else [])


def test_regions_come_once() -> None:
    """More of them than the kernel gives in one of its rounds (512), in one call and in several."""
    with child("fragmented") as pid, Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        places = [tuple(int(one, 16) for one in line.split()[0].split("-")) for line in lines]
        start, end = max((one for one in places if not one[1] >> 63), key=lambda one: one[1] - one[0])
        for most_regions, most_pages in ((1 << 16, 0), (600, 0), (1 << 16, 700)):
            scanner, place, found = pagemap.Scanner(file.fileno(), most_regions), start, []
            while place < end:
                regions, place = scanner.scan(place, end, most_pages)
                found += regions.tolist()
            assert found[::3] == sorted(set(found[::3]))
            assert len(found) // 3 == 8192
            assert sum(found[1::3]) - sum(found[::3]) == 8192 * PAGE


@pytest.mark.parametrize(("word", "split"), [("huge", 0), ("half_huge", 16)])
def test_tables_are_deposited_for_huge_pages(word: str, split: int) -> None:
    with child(word) as pid:
        huge = kib(pid, "AnonHugePages", "smaps")
        if not huge:
            pytest.skip("this machine gives no transparent huge pages")
        reading = read(pid)
        assert reading.page_table_bytes == kib(pid, "VmPTE")
        assert reading.deposited.value == huge // 512
        assert huge == (32 - split) * audit_child.TABLE
        agrees(reading, counted(pid))
        assert known(reading.unused) <= 8 * PAGE


def test_memory_that_is_swapped_out_needs_its_tables() -> None:
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        pytest.skip("this machine has no swap")
    with child("paged_out") as pid:
        reading = read(pid)
        assert reading.swapped_bytes > 0
        agrees(reading, counted(pid))


def test_hugetlbfs_needs_no_last_level_tables() -> None:
    if os.geteuid() or not _POOL.exists():
        pytest.skip("only root may make a pool of huge pages")
    before = _POOL.read_text()
    _POOL.write_text("8")
    try:
        with child("hugetlb") as pid, child() as plain:
            reading = read(pid)
            assert reading.hugetlb_bytes == 16 << 20
            assert reading.page_table_bytes == kib(pid, "VmPTE")
            assert reading.deposited.value == 0
            # Its range may begin a PMD table, and none of the last level.
            assert abs(reading.levels.pte - read(plain).levels.pte) <= 2
            assert known(reading.unused) <= 2 * PAGE
    finally:
        _POOL.write_text(before)


def test_a_kernel_without_pagemap_scan_is_read_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(25, "Inappropriate ioctl for device")

    with child("fragmented", "zero", "huge") as pid:
        scanned = read(pid)
        monkeypatch.setattr(pagemap.fcntl, "ioctl", refuse)
        slow = read(pid)
        assert slow.page_table_bytes == scanned.page_table_bytes
        assert slow.needed.value == known(scanned.needed) + known(scanned.deposited)
        assert slow.unused == scanned.unused
        assert (slow.deposited.value, slow.zero_only.value) == (None, None)
        assert "6.7" in slow.deposited.reason
    with child("nothing") as pid:
        gap = read_process(HostShell(), pid, Deadline(SECONDS))
        assert isinstance(gap, Gap)
        assert "PAGEMAP_SCAN" in gap.reason


def test_a_process_that_ends_or_is_another_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = HostShell()
    with child() as pid:
        (listed,) = list_processes(shell, pid)
        starts = iter([5, 5, 6])
        monkeypatch.setattr(page_tables, "_started", lambda _folder: next(starts))
        assert read_listed(shell, listed, Deadline(SECONDS)) == Gap(pid, listed.status.comm, ENDED)
        monkeypatch.setattr(page_tables, "_started", lambda _folder: 7)  # the id was given away before
        assert read_listed(shell, listed, Deadline(SECONDS)) == Gap(pid, listed.status.comm, ENDED)
        monkeypatch.undo()
        late = read_listed(shell, listed, Deadline(0))
        assert isinstance(late, Gap)
        assert "too long" in late.reason
    gone = read_listed(shell, listed, Deadline(SECONDS))
    assert gone == Gap(pid, listed.status.comm, ENDED)
    assert isinstance(read_process(shell, pid, Deadline(SECONDS)), Gap)
    assert isinstance(read_process(shell, 2, Deadline(SECONDS)), Gap)  # a kernel thread, or nothing


def test_what_it_costs_goes_with_tables_not_with_addresses() -> None:
    """55 TiB of nothing: by far less than a microsecond for each 2 MiB, which is 28,835,840 of them."""
    with child("nothing") as pid, child("sparse") as other:
        empty, sparse = read(pid), read(other)
    assert empty.virtual_bytes > 55 << 40
    assert empty.cpu_seconds < 1.0
    assert sparse.cpu_seconds < 1.0

"""How many page tables a process's pages take, counted from /proc/PID/maps and PAGEMAP_SCAN; the process is
neither stopped nor changed. x86-64 with pages of 4 KiB.

Sent to other hosts with `orchestrator.host.reader`: the standard library of Python 3.8 and nothing else.
"""

from __future__ import annotations

import array
import errno
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.host.mappings import END, PTE_SHIFT, Mapping, hugetlb_devices, parse_mappings, unseen_tables
from orchestrator.host.pagemap import IS_HUGE, IS_PRESENT, IS_SWAPPED, IS_ZERO, PAGE, Scanner

# Intel SDM vol. 3A, 4.5: each level above the last maps 512 times as much.
_PMD, _PUD, _P4D = 9, 18, 27  # bits of a 2 MiB range's number below that of the table's range
_HUGETLB_PUD = 1 << 30

# At most this much is asked for in one call, so that mmap_lock is held for milliseconds: 1 GiB of pages
# that are there, 4 GiB of tables that may map nothing.
_PIECE = 4 << 30
_PIECE_PAGES = 1 << 18
_REGIONS = 4096

_FEW = 8 * PAGE  # of the 2 MiB that a table could map: with so little it counts as sparse
_MOST_SHARED = 64

# Without PAGEMAP_SCAN a hole costs as much as a page, some 10 ns (pagemap_pte_hole(), fs/proc/task_mmu.c).
_MOST_READ = 256 << 30

_ALLOCATOR = re.compile(r"lib(?:jemalloc|tcmalloc|mimalloc)[\w.-]*")


def page_tables(pid: int, seconds: float) -> dict[str, Any]:
    """Tables that the process's pages take, as counts by level, and what else is known of them.

    Raises OSError: ESRCH when the process ends, runs another program, or another takes its id; EACCES or
    EPERM when it is another user's; ETIMEDOUT after `seconds`; EFBIG where the kernel has no PAGEMAP_SCAN and
    too much is mapped.
    """
    began, cpu = time.monotonic(), time.process_time()
    folder = pathlib.Path(f"/proc/{pid}")
    # The order matters: a pagemap that was opened while the process ended has no mm, and before 65c66047259f
    # (6.16) PAGEMAP_SCAN does not look. A process that has mappings afterwards, and is the same, had one.
    identity = _identity(folder)
    before = _text(folder / "status")
    with (folder / "pagemap").open("rb", buffering=0) as pagemap:
        mappings = parse_mappings(_text(folder / "maps"), hugetlb_devices(folder, before))
        if _identity(folder) != identity:
            raise OSError(errno.ESRCH, "it is another now")
        walk = _Walk(pagemap.fileno(), began + seconds)
        count = Count(mappings)
        for regions in walk.regions(mappings):
            count.add(regions)
    count.close()
    after, cgroup = _text(folder / "status"), _text(folder / "cgroup")
    if _identity(folder) != identity:
        raise OSError(errno.ESRCH, "it is another now")
    shared = sorted(count.shared.items(), key=lambda one: -one[1][1])[:_MOST_SHARED]
    return {
        "started": identity[0],
        "before": before,
        "after": after,
        "cgroup": cgroup,
        "tables": [count.pte, count.pmd, count.pud, count.p4d],
        "deposited": count.deposited,
        "zero_only": count.zero_only,
        "sparse": count.sparse,
        "unseen": count.unseen(),
        "scanned": walk.scanned,
        "shared": [[key, name, tables] for key, (name, tables) in shared],
        "libraries": sorted({found[0] for one in mappings if (found := _ALLOCATOR.search(one.name))})[:8],
        "cpu_seconds": time.process_time() - cpu,
        "longest_seconds": walk.longest,
    }


class Count:
    """Counts tables of pages that come in the order of addresses. A table that several mappings share counts
    once, as does a huge page that comes in two parts."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self.pte = self.pmd = self.pud = self.p4d = 0
        self.deposited = self.zero_only = self.sparse = 0
        self.shared: dict[str, tuple[str, int]] = {}
        self._unseen = unseen_tables(mappings)
        # Behind the last: what was mapped since they were read.
        self._mappings = iter((*mappings, Mapping(0, END, False, 0, "", "")))  # noqa: FBT003  # a field
        self._mapping = next(self._mappings)
        self._in_mapping = -1  # last table of it that was counted for it
        self._last = {_PMD: -1, _PUD: -1, _P4D: -1}  # last table of each level that was counted
        self._last_deposit = -1
        # The table that the last pages were in, how much of it is there, and whether any of that is memory.
        self._table, self._size, self._real = -1, 0, False
        self._limit = 0  # what ends before is in the same table and mapping

    def add(self, regions: memoryview) -> None:
        """(start, end, categories) each."""
        for start, end, categories in zip(regions[::3], regions[1::3], regions[2::3]):  # noqa: B905  # since 3.10
            if end <= self._limit:  # most are: this is what takes the time
                self._size += end - start
                if not categories & IS_ZERO:
                    self._real = True
            else:
                self._add(start, end, categories)

    def _add(self, start: int, end: int, categories: int) -> None:
        while start < end:
            while self._mapping.end <= start:
                self._mapping = next(self._mappings)
                self._in_mapping = -1
            mapping = self._mapping
            stop = min(end, mapping.end)
            first, last = start >> PTE_SHIFT, (stop - 1) >> PTE_SHIFT
            if mapping.hugetlb or categories & IS_HUGE:
                self._limit = 0
                self._upper(first, last, pmd=mapping.hugetlb < _HUGETLB_PUD)
                if mapping.deposits and not mapping.hugetlb:
                    self.deposited += max(0, last - max(first - 1, self._last_deposit))
                    self._last_deposit = last
            else:
                self._pages(start, stop, zero=bool(categories & IS_ZERO))
                self._upper(first, last, pmd=True)
                self._limit = min((last + 1) << PTE_SHIFT, mapping.end)
                if mapping.key:
                    tables = last - max(first - 1, self._in_mapping)
                    self.shared[mapping.key] = (
                        mapping.name,
                        self.shared.get(mapping.key, ("", 0))[1] + tables,
                    )
                    self._in_mapping = last
            start = stop

    def _pages(self, start: int, stop: int, *, zero: bool) -> None:
        first, last = start >> PTE_SHIFT, (stop - 1) >> PTE_SHIFT
        for table in (first, last):
            if table > self._table:
                self.close()
                between = table - first - 1 if table > first else 0
                self.pte += 1 + between
                self.zero_only += between if zero else 0
                self._table, self._size, self._real = table, 0, False
                self._unseen.discard(table)
            inside = min(stop, (table + 1) << PTE_SHIFT) - max(start, table << PTE_SHIFT)
            self._size += inside
            self._real = self._real or not zero
            if first == last:
                break

    def _upper(self, first: int, last: int, *, pmd: bool) -> None:
        """Count the tables above those of the 2 MiB ranges from `first` to `last`."""
        if pmd:
            self.pmd += self._new(_PMD, first, last)
        self.pud += self._new(_PUD, first, last)
        self.p4d += self._new(_P4D, first, last)

    def _new(self, level: int, first: int, last: int) -> int:
        upto, seen = last >> level, self._last[level]
        if upto <= seen:
            return 0
        self._last[level] = upto
        return upto - max((first >> level) - 1, seen)

    def close(self) -> None:
        """No more pages of the last table come."""
        if self._size:
            self.sparse += self._size <= _FEW
            self.zero_only += not self._real
        self._size = 0

    def unseen(self) -> int:
        """Tables, of all levels, that mappings of devices may have beside those counted; at most."""
        left = self._unseen
        return len(left) + len({table >> _PMD for table in left}) + len({table >> _PUD for table in left})


class _Walk:
    """Over all that is mapped, in pieces."""

    def __init__(self, pagemap: int, until: float) -> None:
        self.scanned = True
        self.longest = 0.0
        self._pagemap = pagemap
        self._until = until
        self._scanner = Scanner(pagemap, _REGIONS)

    def regions(self, mappings: Sequence[Mapping]) -> Iterator[memoryview]:
        place = 0
        for one in mappings:
            place = max(place, one.start)
            while place < one.end:
                # Over the end of the mapping: the next may be near, and a process may have tens of thousands.
                end = min((place & -(1 << 30)) + _PIECE, max(mappings[-1].end, one.end))
                began = time.monotonic()
                if began > self._until:
                    raise OSError(errno.ETIMEDOUT, "it takes too long to read")
                found, place = self._piece(place, end, mappings)
                self.longest = max(self.longest, time.monotonic() - began)
                yield found

    def _piece(self, start: int, end: int, mappings: Sequence[Mapping]) -> tuple[memoryview, int]:
        if self.scanned:
            try:
                found, walked = self._scanner.scan(start, end, _PIECE_PAGES)
            except OSError as error:
                if error.errno != errno.ENOTTY:
                    raise
                self.scanned = False
                if sum(one.end - one.start for one in mappings) > _MOST_READ:
                    why = "its kernel has no PAGEMAP_SCAN (Linux 6.7 has), and it maps more than can be read"
                    raise OSError(errno.EFBIG, why) from error
            else:
                return found, walked
        return self._read(start, min(end, start + _PIECE_PAGES * PAGE))

    def _read(self, start: int, end: int) -> tuple[memoryview, int]:
        """The same by reading pagemap, which tells neither huge pages nor zero pages."""
        raw = os.pread(self._pagemap, (end - start) // PAGE * 8, start // PAGE * 8)
        bits = raw[7::8].translate(_PRESENCE)
        words = []
        for run in re.finditer(b"\x08+|\x10+", bits):
            words += [start + run.start() * PAGE, start + run.end() * PAGE, bits[run.start()]]
        return memoryview(array.array("Q", words)), end


# Bit 63 of an entry: present, bit 62: swapped (Documentation/admin-guide/mm/pagemap.rst).
_PRESENCE = bytes(IS_PRESENT if bits & 0x80 else IS_SWAPPED if bits & 0x40 else 0 for bits in range(256))


def _identity(folder: pathlib.Path) -> tuple[int, ...]:
    """When it began, in clock ticks since the boot, and where its code and its stack do: these change, with
    all of its memory, when it runs another program (proc_pid_stat(5), fields 22, 26, 28)."""
    fields = _text(folder / "stat").rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        raise OSError(errno.ESRCH, "it has ended")
    return tuple(int(fields[number - 3]) for number in (22, 26, 28))


def _text(path: pathlib.Path) -> str:
    return path.read_text(errors="replace")

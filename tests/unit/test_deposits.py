"""Page tables that are kept for huge pages: measured here, found in struct pages, and no policy's to free."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import USER_DATA, USER_HUGE, Guest, entry
from test_evidence import FRAMES, Memory

from orchestrator.guest.evidence import Deposits, find_deposits, read_evidence
from orchestrator.host.domain import QemuProcess
from orchestrator.host.qemu_process import Segment, page_state, status_bytes
from orchestrator.model.blame import table_kind_name
from orchestrator.model.frames import KPF_ANON, KPF_BUDDY, KPF_HUGE, KPF_LRU, KPF_PGTABLE, KPF_THP
from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.model.snapshot_trace import read_series
from orchestrator.model.tables import LAST_LEVEL, UNKNOWN_LEVEL, TableState
from orchestrator.summary.snapshots import blame_regions

US = QemuProcess(os.getpid())
HUGE = 2 << 20
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TABLES = 48


# On the kernel that runs this test.


@contextmanager
def aligned(ranges: int) -> Iterator[tuple[mmap.mmap, int]]:
    """Memory that huge pages are wanted for, and where in it the first of `ranges` begins."""
    with mmap.mmap(-1, (ranges + 1) * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as region:
        region.madvise(mmap.MADV_HUGEPAGE)
        view = np.frombuffer(region, dtype=np.uint8)
        first = -view.ctypes.data % HUGE
        del view
        yield region, first


def huge_in(region: mmap.mmap, first: int, ranges: int) -> int:
    view = np.frombuffer(region, dtype=np.uint8)
    state = page_state(US, Segment(0, view.ctypes.data + first, ranges * HUGE))
    del view
    assert state.huge is not None
    return int(state.huge.sum()) * 4096 // HUGE


def test_a_huge_page_of_anonymous_memory_saves_no_page_table() -> None:
    """VmPTE grows by 4 KiB for each, as a table in use would take; and that goes with the page, no sooner."""
    if not THP.exists() or "[never]" in THP.read_text():
        pytest.skip(f"no transparent huge pages on this machine: {THP}")
    tables = TABLES * 4096
    few = 3 * 4096  # upper tables, and what this process itself needs meanwhile
    with aligned(TABLES) as (region, first):
        before = status_bytes(US)["VmPTE"]
        for number in range(TABLES):
            region[first + number * HUGE] = 1
        made = huge_in(region, first, TABLES)
        if made < TABLES:
            pytest.skip(f"this machine had {made} huge pages to give, not {TABLES}")
        assert tables <= status_bytes(US)["VmPTE"] - before <= tables + few
        # Split in two: what was deposited is in use now, and there is none more of it.
        half = TABLES // 2
        for number in range(half):
            region.madvise(mmap.MADV_DONTNEED, first + number * HUGE, HUGE // 2)
        assert huge_in(region, first, TABLES) == half
        assert tables <= status_bytes(US)["VmPTE"] - before <= tables + few
        # The huge pages that are left go, each with its table.
        with_half = status_bytes(US)["VmPTE"]
        region.madvise(mmap.MADV_DONTNEED, first + half * HUGE, half * HUGE)
        assert abs(with_half - status_bytes(US)["VmPTE"] - half * 4096) <= few


# In the struct pages of a guest.


def tables_of(memory: Memory, *pmds: tuple[int, list[int]]) -> None:
    """Write down PMD tables, and what is deposited in each, as the kernel links them."""
    for pmd, deposited in pmds:
        for pfn in (pmd, *deposited):
            memory.flags[pfn] = 1 << KPF_PGTABLE
        ring = [*deposited[-1:], *deposited, *deposited[:1]]
        for pfn, before, after in zip(deposited, ring, ring[2:], strict=False):
            memory.page(pfn, refcount=1, lru=(memory.lru(after), memory.lru(before)))
        last = memory.lru(deposited[-1]) - memory.layout.lru if deposited else 0
        memory.page(pmd, refcount=1, lru=(0, last))


def found_in(memory: Memory, entries: list[int]) -> Deposits:
    raw = read_evidence(memory.read, memory.layout, memory.flags)
    tables = np.flatnonzero(memory.flags == 1 << KPF_PGTABLE)
    return find_deposits(raw, memory.flags, tables, np.array(entries, dtype=np.uint64))


@pytest.mark.parametrize("levels", [4, 5])
def test_what_is_deposited_hangs_at_the_pmd_table(levels: int) -> None:
    memory = Memory()
    if levels == 4:
        four = replace(memory.layout, levels=4, vmalloc=0xFFFF_C900 << 32, vmemmap=0xFFFF_EA00 << 32)
        memory = Memory(four)
    tables_of(memory, (1000, [1010]), (1001, [1020, 900, 1021]), (1002, []))
    # Not deposited: on a list of roots (pgd_list), which links lru to lru; freed before, with a poisoned
    # list; and a table in a slab's old frame.
    for pfn in (1100, 1101, 1102, 1103):
        memory.flags[pfn] = 1 << KPF_PGTABLE
    memory.page(1100, refcount=1, lru=(memory.lru(1101), memory.lru(1101)))
    memory.page(1101, refcount=1, lru=(memory.lru(1100), memory.lru(1100)))
    memory.page(1102, refcount=1, lru=(0xDEAD << 48 | 0x100, 0xDEAD << 48 | 0x122))
    memory.page(1103, refcount=1, lru=(0xFFFF_8880_0000_1000, memory.lru(1010) - memory.layout.lru + 16))
    # Points at the struct page of a frame that is no page table.
    memory.flags[1104] = 1 << KPF_PGTABLE
    memory.page(1104, refcount=1, lru=(0, memory.lru(2000) - memory.layout.lru))
    found = found_in(memory, [entry(2048, USER_HUGE)])
    assert dict(zip(found.pfn.tolist(), found.below.tolist(), strict=True)) == {
        900: 1001,
        1010: 1000,
        1020: 1001,
        1021: 1001,
    }
    assert found.read


def test_huge_mappings_of_anonymous_memory_are_what_tables_are_deposited_for() -> None:
    memory = Memory()
    anonymous, file, hugetlb, beyond = 512, 1024, 1536, FRAMES
    memory.flags[anonymous] = 1 << KPF_ANON | 1 << KPF_THP
    memory.flags[file] = 1 << KPF_LRU | 1 << KPF_THP
    memory.flags[hugetlb] = 1 << KPF_ANON | 1 << KPF_HUGE
    entries = [entry(pfn, USER_HUGE) for pfn in (anonymous, file, hugetlb, beyond)]
    entries += [
        entry(anonymous, USER_DATA),
        entry(anonymous, USER_HUGE & ~1),
        entry(anonymous | 1, USER_HUGE),
    ]
    found = found_in(memory, entries)
    assert found.huge_mappings == 2, "the page once more, with its PAT bit"
    assert not len(found.pfn)
    assert not found.read, "a kernel that keeps them elsewhere (USE_SPLIT_PMD_PTLOCKS) is not one without"
    assert found_in(memory, entries[1:4]).read, "none are needed, and there are none"


def test_without_struct_pages_nothing_is_known_of_them() -> None:
    found = find_deposits(None, np.zeros(8, dtype=np.uint64), np.arange(2), np.empty(0, dtype=np.uint64))
    assert (len(found.pfn), found.read) == (0, False)


# In the model.


def with_huge_pages(*, read: bool = True) -> tuple[Snapshot, dict[str, int]]:
    """A process with two huge pages, a table in use and an empty one; and a table that is new."""
    guest = Guest(4096)
    guest.flags[:] = 1 << KPF_BUDDY
    guest.flags[1024:2048] = 1 << KPF_ANON | 1 << KPF_THP
    pfn = {"used": guest.table({3: entry(guest.anon(), USER_DATA)})}
    pfn |= {name: guest.table() for name in ("empty", "deposited", "deposited too", "new")}
    pfn["pmd"] = guest.upper({0: pfn["used"], 1: pfn["empty"]})
    guest.tables[pfn["pmd"]] |= {2: entry(1024, USER_HUGE), 3: entry(1536, USER_HUGE)}
    pfn["pud"] = guest.upper({0: pfn["pmd"]})
    pfn["pgd"] = guest.upper({0: pfn["pud"]})
    snapshot = guest.snapshot()
    if read:
        deposited = np.array([pfn["deposited"], pfn["deposited too"]])
        below = np.full(2, pfn["pmd"])
        snapshot = replace(snapshot, deposited_pfn=deposited, deposited_below=below, deposits_read=True)
    assert snapshot.faults() == []
    return snapshot, pfn


def test_deposited_tables_are_a_class_of_their_own() -> None:
    snapshot, pfn = with_huge_pages()
    tables = StateView.of(snapshot).tables
    counts = tables.counts()
    assert counts[LAST_LEVEL].tolist() == [1, 0, 1, 2], "empty, zero page only, valid, deposited"
    assert counts[0].tolist() == [1, 0, 0, 0], "the new one"
    deposited = tables.state == TableState.DEPOSITED
    assert tables.pfn[tables.parent[deposited]].tolist() == [pfn["pmd"]] * 2
    assert table_kind_name(LAST_LEVEL * len(TableState) + TableState.DEPOSITED) == (
        "PTE, deposited for a huge page"
    )


@pytest.mark.parametrize(
    ("policy", "freed", "moved"),
    [
        ("empty", {"empty"}, set()),
        ("zero_page", {"empty"}, set()),
        ("page_cache", {"empty"}, set()),
        ("empty_all_levels", {"empty"}, set()),
        ("pressure_random", {"empty"}, {"used", "deposited", "deposited too", "pmd", "pud"}),
        ("page_cache_first", {"empty"}, {"used", "deposited", "deposited too", "pmd", "pud"}),
        ("migrate", set(), {"used", "empty", "deposited", "deposited too", "pmd", "pud"}),
        ("process_exit", {"used", "empty", "deposited", "deposited too", "pmd", "pud", "pgd"}, set()),
    ],
)
def test_no_policy_frees_a_deposited_table(policy: str, freed: set[str], moved: set[str]) -> None:
    """Its huge page could not be split any more. It could be put elsewhere, and goes with its process."""
    snapshot, pfn = with_huge_pages()
    effect = OverSnapshot.named(policy).apply(StateView.of(snapshot))
    for mask, expected in ((effect.freed, freed), (effect.to_move, moved)):
        assert {name for name, frame in pfn.items() if frame in effect.tables.pfn[mask]} == expected


def test_where_they_were_not_read_they_are_empty_tables_of_no_level_and_stay() -> None:
    snapshot, _ = with_huge_pages(read=False)
    state = StateView.of(snapshot)
    assert state.tables.counts()[0].tolist() == [3, 0, 0, 0]
    effect = OverSnapshot.named("empty").apply(state)
    unknown = (state.tables.level == UNKNOWN_LEVEL) & (state.tables.state == TableState.EMPTY)
    assert (effect.tables_freed, int(unknown.sum())) == (1, 3)


def test_what_was_read_of_a_table_that_is_in_use_is_not_believed() -> None:
    """The guest ran on between the readings: a huge page was split, or another made."""
    snapshot, pfn = with_huge_pages()
    for wrong in (pfn["used"], pfn["empty"], 4000):
        torn = replace(snapshot, deposited_pfn=np.array([wrong]), deposited_below=np.array([pfn["pmd"]]))
        tables = StateView.of(torn).tables
        assert not (tables.state == TableState.DEPOSITED).any()


def test_a_deposited_table_is_none_of_those_that_are_touched() -> None:
    state = StateView.of(with_huge_pages()[0])
    series = read_series("twice", [state.tables, state.tables])
    assert [step.tables for step in series.pairs] == [2, 2], "the used one and the empty one"


def test_blame_names_them() -> None:
    snapshot, _ = with_huge_pages()
    whole = replace(snapshot, regions=(Region("all", 0, 4096, 512, 4096 * 4096),))
    (region,) = blame_regions(StateView.of(whole))
    kinds = {share.kind: share.tables for share in region.tables}
    assert kinds["PTE, deposited for a huge page"] == 2
    assert kinds["PTE, empty"] == 1

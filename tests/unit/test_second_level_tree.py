"""KVM's tables found by their content: a tree that is built here entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.levers.collapse import Collapse
from orchestrator.model.nearly_full import MAX_GROWTH, MIN_PRESENT
from orchestrator.model.policies import OverTree
from orchestrator.model.second_level import fullest
from orchestrator.model.second_level_counts import SecondLevelCounts, TreeEffectCounts
from orchestrator.model.second_level_tree import NONPRESENT, decode_tree, looks_like_table
from orchestrator.units import PAGE_BYTES

# Entries as KVM makes them for NPT: present, writable, user, accessed, host- and MMU-writable, MMU-present.
LINK = 0xC27 | 1 << 5
LEAF = 0xE07
ACCESSED = 1 << 5
MMIO = 1 << 51 | 1 | 0xFE000 << 12
ROOT, PDPT, PMD, FULL, EMPTY, ZERO, IDLE, STOCK = 10, 11, 12, 13, 14, 15, 16, 17
ZERO_FRAME = 900


def entry(frame: int, bits: int) -> int:
    return frame << 12 | bits


def table(entries: dict[int, int]) -> list[int]:
    return [entries.get(slot, int(NONPRESENT)) for slot in range(512)]


TREE = {
    ROOT: table({0: entry(PDPT, LINK)}),
    PDPT: table({0: entry(PMD, LINK)}),
    PMD: table(
        {
            0: entry(FULL, LINK),
            1: entry(EMPTY, LINK),
            2: entry(ZERO, LINK),
            3: entry(IDLE, LINK),
            4: entry(0x1000, LEAF | 1 << 7),  # a huge page
        }
    ),
    FULL: table({slot: entry(0x2000 + slot, LEAF | ACCESSED) for slot in range(511)} | {511: MMIO}),
    EMPTY: table({}),
    ZERO: table({3: entry(ZERO_FRAME, LEAF)}),
    IDLE: table({3: entry(0x3000, LEAF)}),
    STOCK: table({}),
}
PFN = np.array(sorted(TREE), dtype=np.int64)
CONTENTS = np.array([TREE[int(pfn)] for pfn in PFN], dtype=np.uint64)


def test_tables_look_like_tables_and_other_memory_does_not() -> None:
    assert looks_like_table(CONTENTS).all()
    rng = np.random.default_rng(1)
    others = np.array(
        [
            np.zeros(512),
            np.full(512, 0xFFFF888000000000),  # pointers
            np.full(512, 0x2020202020202020),  # text
            rng.integers(0, 1 << 63, 512),
        ],
        dtype=np.uint64,
    )
    of_process = np.zeros(512, dtype=np.uint64)
    of_process[5] = 0x8000000123456067  # of a process: other entries are zero
    assert not looks_like_table(np.vstack([others, of_process])).any()


def test_levels_follow_from_links() -> None:
    tree = decode_tree(PFN, CONTENTS, np.array([ZERO_FRAME]), "NPT")
    assert dict(zip(PFN.tolist(), tree.level.tolist(), strict=True)) == {
        ROOT: 4,
        PDPT: 3,
        PMD: 2,
        FULL: 1,
        EMPTY: 1,
        ZERO: 1,
        IDLE: 1,
        STOCK: 0,
    }
    assert tree.mapped.tolist() == [0, 0, 1, 511, 0, 1, 1, 0]
    assert tree.accessed[PFN == FULL] == 511
    assert tree.zero_page.sum() == 1


def test_what_policies_would_free() -> None:
    tree = decode_tree(PFN, CONTENTS, np.array([ZERO_FRAME]), "NPT")
    counts = SecondLevelCounts.of(tree)
    nothing = {"huge_pages": 0, "bytes_taken_at_most": 0}
    effects = {
        "empty": TreeEffectCounts(1, 0, **nothing),
        "empty_all_levels": TreeEffectCounts(1, 0, **nothing),
        "zero_page": TreeEffectCounts(2, 1, **nothing),
        "lru": TreeEffectCounts(3, 2, **nothing),
        "drop": TreeEffectCounts(4, 3, **nothing),
        "flush": TreeEffectCounts(7, 6, **nothing),
        # FULL is in the first 2 MiB, which are several memory slots.
        "collapse": TreeEffectCounts(0, 0, **nothing),
        "collapse-and-flush": TreeEffectCounts(7, 6, **nothing),
    }
    assert counts == SecondLevelCounts(tables=7, last_level=4, unlinked=1, effects=effects)
    assert SecondLevelCounts.from_json(counts.to_json()) == counts
    assert OverTree.names() == sorted(effects)
    assert tree.pfn[OverTree.named("zero_page").zaps(tree)].tolist() == [EMPTY, ZERO]


def test_what_huge_pages_free_and_take() -> None:
    """Ranges with 480 pages of their own and more, other than the first: the zero page is none."""
    contents, pfn = CONTENTS.copy(), dict(zip(PFN.tolist(), range(len(PFN)), strict=True))
    contents[pfn[EMPTY], :480] = entry(0x4000, LEAF)
    contents[pfn[ZERO], :479] = entry(0x5000, LEAF)
    contents[pfn[ZERO], 479:] = entry(ZERO_FRAME, LEAF)
    contents[pfn[IDLE], :500] = entry(0x6000, LEAF)
    tree = decode_tree(PFN, contents, np.array([ZERO_FRAME]), "NPT")
    assert [tree.number[pfn[one]] for one in (FULL, EMPTY, ZERO, IDLE, STOCK)] == [0, 1, 2, 3, 0]
    collapse, both = (OverTree.named(name).effect(tree) for name in ("collapse", "collapse-and-flush"))
    assert PFN[collapse.collapsed].tolist() == PFN[collapse.freed].tolist() == [EMPTY, IDLE]
    assert collapse.bytes_taken == both.bytes_taken == (32 + 12) * PAGE_BYTES
    assert not collapse.rebuilt.any(), "a huge page needs no last-level table"
    assert PFN[both.freed].tolist() == [ROOT, PDPT, PMD, FULL, EMPTY, ZERO, IDLE]
    assert PFN[both.rebuilt].tolist() == [ROOT, PDPT, PMD, FULL, ZERO]
    assert OverTree.named("collapse").when_touched
    assert not OverTree.named("collapse-and-flush").when_touched


@given(
    st.lists(st.integers(1, 512), max_size=40).map(lambda found: np.array(found, np.int64)),
    st.integers(1, 512),
    st.integers(0, 5000),
)
def test_the_fullest_ranges_are_chosen(present: NDArray[np.int64], least: int, lacking: int) -> None:
    chosen, left = [], lacking
    for at in sorted(range(len(present)), key=lambda at: (-present[at], at)):
        missing = 512 - int(present[at])
        if present[at] < least or missing > left:
            break
        chosen.append(at)
        left -= missing
    assert fullest(present, least, lacking * PAGE_BYTES).tolist() == chosen


def test_the_lever_and_the_policy_choose_alike() -> None:
    assert (Collapse().min_present, Collapse().max_growth) == (MIN_PRESENT, MAX_GROWTH)


def test_the_note_of_an_older_snapshot_is_read() -> None:
    note = (
        '{"tables": 475, "last_level": 464, "unlinked": 3, "empty": 305, "empty_all_levels": 307, '
        '"zero_page": 305, "lru": 305, "drop": 464}'
    )
    counts = SecondLevelCounts.from_json(note)
    assert counts is not None
    assert (counts.tables, counts.last_level, counts.unlinked) == (475, 464, 3)
    assert counts.freed == {
        "empty": 305,
        "empty_all_levels": 307,
        "zero_page": 305,
        "lru": 305,
        "drop": 464,
    }


def test_tables_above_go_with_all_below_them() -> None:
    contents = CONTENTS.copy()
    contents[PFN == PMD] = np.array(table({1: entry(EMPTY, LINK)}), dtype=np.uint64)
    tree = decode_tree(PFN, contents, np.array([ZERO_FRAME]), "NPT")
    counts = SecondLevelCounts.of(tree)
    assert counts.freed["empty"] == 1
    assert counts.freed["empty_all_levels"] == 4, "with the last one goes all that led to it"
    assert counts.unlinked == 4


def test_without_any_table_there_is_nothing() -> None:
    nothing = np.empty((0, 512), dtype=np.uint64)
    tree = decode_tree(np.empty(0, np.int64), nothing, np.empty(0, np.int64), "EPT")
    assert SecondLevelCounts.of(tree).tables == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"tables": "x"}',
        '{"tables": 1, "last_level": 1, "unlinked": 0, "effects": {"drop": {"of a later version": 1}}}',
        '{"tables": 1, "last_level": 1, "unlinked": 0, "effects": [1]}',
    ],
)
def test_a_note_that_is_none(text: str) -> None:
    assert SecondLevelCounts.from_json(text) is None

"""Made-up guests: table maths, the talk's cases, and what patterns promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelled import committed, sizes_of

from orchestrator.errors import BadInputError
from orchestrator.model.guest_tables import GuestMappings, GuestTables, build_tables
from orchestrator.model.patterns import PATTERNS, pattern_named
from orchestrator.model.policies import OverSnapshot
from orchestrator.model.tables import TableState, needed_tables
from orchestrator.units import GIB, KIB, MIB, PAGE_BYTES

SMALL: dict[str, dict[str, Any]] = {
    "dense": {"size": "64MiB"},
    "sparse": {"span": "1GiB", "unmapped": 0.5},
    "jemalloc": {"span": "1GiB", "touches": 1000},
    "redis_churn": {"span": "1GiB", "resident": "64MiB", "touches": 1000},
    "many_mappings": {"mappings": 100},
    "boot_then_idle": {"size": "64MiB", "rounds": 3},
    "phases": {"size": "64MiB", "touches": 100},
}


def built(name: str, levels: int = 4, **parameters: object) -> GuestTables:
    layout = pattern_named(name, parameters).guest_mappings(np.random.default_rng(0))
    return build_tables(layout, levels=levels)


def left_bytes(guest: GuestTables, policy: str) -> int:
    return guest.table_bytes - OverSnapshot.named(policy).apply(guest).bytes_freed


@given(st.integers(1, 200_000), st.sampled_from([4, 5]))
def test_a_dense_guest_needs_what_arithmetic_says(pages: int, levels: int) -> None:
    guest = built("dense", levels, size=f"{max(pages, 512) * PAGE_BYTES}B")
    pages = max(pages, 512)
    expected = [0, *(-(-pages // 512**level) for level in range(1, levels + 1)), *[0] * (5 - levels)]
    assert guest.level_counts().tolist() == expected
    assert (
        guest.level_counts()[: levels + 1].tolist() == needed_tables(np.arange(pages), levels=levels).tolist()
    )
    assert int(guest.tables.present[guest.tables.level == 1].sum()) == pages


@pytest.mark.parametrize("gib", [1, 7, 64, 600])
def test_each_gib_needs_2_mib_of_last_level_tables(gib: int) -> None:
    counts = built("dense", size=f"{gib}GiB").level_counts()
    assert counts[1] * PAGE_BYTES == gib * 2 * MIB
    assert counts[2:5].tolist() == [gib, -(-gib // 512), 1]


def test_the_talks_50_gib_touched_once() -> None:
    guest = built("sparse")
    assert sizes_of("sparse", guest) == committed("guests")["sparse"]
    assert guest.level_counts()[1] * PAGE_BYTES == 100 * MIB
    after_empty = left_bytes(guest, "empty")
    # 50 PMD tables, a PUD table and the root; published for PT_RECLAIM: 240 KiB, with the process's own.
    assert after_empty == 52 * PAGE_BYTES <= 240 * KIB
    assert left_bytes(guest, "empty_all_levels") == PAGE_BYTES <= 100 * KIB


@pytest.mark.slow
def test_a_redis_of_600_gib_has_100_gib_of_tables() -> None:
    """From the address space that it used, not from a number of tables."""
    guest = built("redis_churn")
    sizes = sizes_of("redis_churn", guest)
    assert sizes == committed("guests")["redis_churn"]
    assert 100 * GIB < guest.table_bytes < 101 * GIB
    pages = int(guest.tables.present[guest.tables.level == 1].astype(np.int64).sum())
    assert pages * PAGE_BYTES == pytest.approx(600 * GIB, rel=0.001)
    freed = {name: size / GIB for name, size in sizes["freed_bytes"].items()}
    # 15.7 million survivors over 25.9 million tables: exp(-0.606) of these have none.
    assert freed["empty"] == pytest.approx(98.9 * np.exp(-0.6066), rel=0.001)
    assert OverSnapshot.named("none").apply(guest).bytes_freed == 0
    assert freed["empty_all_levels"] == freed["empty"]  # some survivor is below every PMD table


@pytest.mark.parametrize("leaf_level", [1, 2, 3])
@pytest.mark.parametrize("levels", [4, 5])
def test_huge_leaves_stand_higher_up(leaf_level: int, levels: int) -> None:
    one = np.array([512], dtype=np.int16)
    none = np.zeros(1, dtype=np.int16)
    layout = GuestMappings(np.array([3], dtype=np.int64), one, none, none, np.zeros(1, np.int32), leaf_level)
    guest = build_tables(layout, levels=levels)
    expected = [0 if not leaf_level <= at <= levels else 1 for at in range(6)]
    if leaf_level == 2:  # each huge page has a last-level table all the same; hugetlb's have none
        expected[1] = 512
    assert guest.level_counts().tolist() == expected
    assert int(guest.tables.huge.sum()) == (512 if leaf_level > 1 else 0)
    assert guest.tables.counts()[1, TableState.DEPOSITED] == (512 if leaf_level == 2 else 0)
    for policy in ("empty", "empty_all_levels", "zero_page", "page_cache"):
        assert OverSnapshot.named(policy).apply(guest).tables_freed == 0
    assert OverSnapshot.named("process_exit").apply(guest).tables_freed == len(guest.tables)


def test_huge_pages_of_files_have_no_table() -> None:
    """Three huge pages in one table, one of them of a file; and one in the next, behind it."""
    pages, files = np.array([3, 1], dtype=np.int16), np.array([1, 0], dtype=np.int16)
    none = np.zeros(2, dtype=np.int16)
    guest = build_tables(
        GuestMappings(np.array([0, 1]), pages, none, files, np.zeros(2, np.int32), leaf_level=2)
    )
    tables = guest.tables
    deposited = tables.state == TableState.DEPOSITED
    assert tables.parent[deposited].tolist() == [0, 0, 1]
    assert tables.present[deposited].tolist() == tables.links[deposited].tolist() == [0, 0, 0]
    # PGD, PUD, the first PMD table, its three huge pages, and what is deposited for two of these.
    assert tables.pfn[0] == 2
    assert tables.pfn[deposited].tolist() == [3 + 3 * 512, 4 + 3 * 512, tables.pfn[1] + 1 + 512]
    assert len(np.unique(tables.pfn)) == len(tables)


def test_entries_are_counted_as_they_were_written() -> None:
    pages = np.array([0, 5, 512, 7], dtype=np.int16)
    zero = np.array([0, 5, 2, 0], dtype=np.int16)
    cache = np.array([0, 0, 10, 7], dtype=np.int16)
    age = np.array([0, 0, 3, 0], dtype=np.int32)
    guest = build_tables(GuestMappings(np.array([0, 1, 600, 10**6]), pages, zero, cache, age), seed=9)
    leaf = guest.tables.level == 1
    assert guest.tables.present[leaf].tolist() == pages.tolist()
    assert guest.tables.zero_page[leaf].tolist() == zero.tolist()
    assert guest.tables.accessed[leaf].tolist() == [0, 5, 0, 7]
    assert guest.tables.page_cache[leaf].tolist() == cache.tolist()
    state = [TableState.EMPTY, TableState.ZERO_ONLY, TableState.VALID, TableState.VALID]
    assert guest.tables.state[leaf].tolist() == state
    assert guest.unmovable.tolist() == sorted(guest.tables.pfn.tolist())
    # Frames: no two tables share one, and the pages lie in between.
    assert len(set(guest.tables.pfn.tolist())) == len(guest.tables)
    assert int(guest.tables.pfn.max()) < len(guest.tables) + int(pages.sum())


@given(st.sampled_from(sorted(SMALL)), st.integers(0, 3))
@settings(max_examples=30)
def test_patterns_keep_what_they_promise(name: str, seed: int) -> None:
    pattern = pattern_named(name, SMALL[name])
    layout = pattern.guest_mappings(np.random.default_rng(seed))
    trace = pattern.trace(np.random.default_rng(seed))
    assert trace.faults() == []
    assert (np.diff(layout.number) > 0).all()
    assert (layout.zero_page + layout.page_cache <= layout.pages).all()
    guest = build_tables(layout, seed=seed)
    tables = guest.tables
    assert int(tables.present.sum()) == int(layout.pages.sum()) + int(tables.links.sum())
    assert int(tables.links.sum()) == len(tables) - 1  # all but the root hang below another
    again = pattern.trace(np.random.default_rng(seed))
    assert (again.table == trace.table).all()
    for policy in ("empty", "zero_page", "empty_all_levels", "pressure_random"):
        effect = OverSnapshot.named(policy).apply(guest, seed=seed, budget_tables=7)
        assert effect.tables_freed + effect.tables_to_move <= 7
        assert (tables.state[effect.freed & (tables.level == 1)] <= TableState.ZERO_ONLY).all()


def test_every_pattern_is_tried_here() -> None:
    assert PATTERNS.names() == sorted(SMALL)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("dense", {"size": "6"}, "not a size"),
        ("dense", {"sise": "6GiB"}, "sise"),
        ("sparse", {"unmapped": float("nan")}, "unmapped"),
        ("sparse", {"unmapped": -0.5}, "unmapped"),
        ("lumpy", {}, "no pattern is called 'lumpy'"),
    ],
)
def test_parameters_that_make_no_sense(name: str, parameters: dict[str, object], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        pattern_named(name, parameters)

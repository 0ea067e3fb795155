"""A series of snapshots as touches: what must have been touched, what may have been, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import SWAPPED, USER_DATA, USER_UNACCESSED, Guest, entry

from orchestrator.model.replay import replay
from orchestrator.model.snapshot_trace import SnapshotPair, SnapshotTrace, TouchBound, read_series
from orchestrator.model.tables import LAST_LEVEL, Tables, TableState, decode_tables
from orchestrator.model.trace import TouchKind
from orchestrator.units import GIB

# Frames of three PMD tables and of last-level tables below them; the top two levels are always there.
PMDS, LEAVES, DATA = (10, 11, 12), range(20, 26), range(40, 60)
Leaves = dict[int, tuple[int, dict[int, int]]]  # by frame: the PMD table above, and the entries


def tables(leaves: Leaves) -> Tables:
    guest = Guest()
    for frame in DATA:
        guest.flags[frame] = 0x7C60  # memory of a process, whatever it is
    anchor = guest.table({0: entry(DATA[-1], USER_UNACCESSED)}, pfn=30)
    for pfn, (_, entries) in leaves.items():
        guest.table(entries, pfn=pfn)
    slots: dict[int, dict[int, int]] = {pmd: {} for pmd in PMDS}
    slots[PMDS[0]][511] = anchor
    for slot, (pfn, (pmd, _)) in enumerate(leaves.items()):
        slots[pmd][slot] = pfn
    for pmd, below in slots.items():
        guest.table({slot: entry(pfn, 0x67) for slot, pfn in below.items()}, pfn=pmd)
    used = [pmd for pmd in PMDS if slots[pmd]]
    guest.table({slot: entry(pmd, 0x67) for slot, pmd in enumerate(used)}, pfn=13)
    guest.table({0: entry(13, 0x67)}, pfn=14)
    return decode_tables(guest.snapshot())


def pages(number: int, flags: int = USER_DATA) -> dict[int, int]:
    return {slot: entry(DATA[slot], flags) for slot in range(number)}


def series(*snapshots: Leaves, reading: TouchBound = TouchBound.POSSIBLE) -> SnapshotTrace:
    return read_series("made up", [tables(leaves) for leaves in snapshots], reading)


def step(before: Leaves, after: Leaves) -> SnapshotPair:
    return series(before, after).pairs[1]


ONE: Leaves = {20: (10, pages(3))}  # beside the anchor, which nothing ever happens to


@pytest.mark.parametrize(
    ("after", "allocated", "at_least", "at_most", "unmapped"),
    [
        (ONE, 0, 0, 1, 0),  # the bits may be old
        ({20: (10, pages(3, USER_UNACCESSED))}, 0, 0, 0, 0),
        ({20: (10, pages(4))}, 0, 1, 1, 0),  # an entry more
        ({20: (10, pages(2))}, 0, 0, 1, 0),  # one less is no touch
        ({20: (10, pages(3) | {7: SWAPPED})}, 0, 1, 1, 0),
        ({20: (10, {})}, 0, 0, 0, 1),
        ({}, 0, 0, 0, 1),
        ({20: (11, pages(3))}, 1, 1, 1, 1),  # another table in the same frame
        ({20: (10, pages(3)), 21: (11, pages(1))}, 1, 1, 2, 0),
        ({20: (10, pages(3)), 21: (11, {})}, 1, 1, 2, 1),  # made, filled and emptied again
    ],
)
def test_one_step(after: Leaves, allocated: int, at_least: int, at_most: int, unmapped: int) -> None:
    found = step(ONE, after)
    assert (found.allocated, found.unmapped) == (allocated, unmapped)
    assert (found.touched_at_least, found.touched_at_most) == (at_least, at_most)


def test_new_accessed_bits_are_a_certain_touch() -> None:
    cold = {20: (10, pages(3, USER_UNACCESSED))}
    assert (step(cold, ONE).touched_at_least, step(cold, ONE).touched_at_most) == (1, 1)


def test_idle_is_since_the_last_certain_touch() -> None:
    both: Leaves = {20: (10, pages(3)), 21: (11, pages(1))}
    more: Leaves = {20: (10, pages(3)), 21: (11, pages(2))}
    # Frame 20 and the anchor not since the first; frame 21 at the third.
    assert sorted(series(both, both, more, more).idle.tolist()) == [1, 3, 3]


def test_tables_below_one_pmd_table_stand_together() -> None:
    found = series({20: (10, pages(1)), 21: (11, pages(1)), 22: (11, pages(1))}).trace
    above = np.unique(found.table >> 9, return_counts=True)[1]
    assert sorted(above.tolist()) == [2, 2]
    assert replay(found, "none", GIB).upper_tables == 2


leaves = st.dictionaries(
    st.sampled_from(LEAVES),
    st.tuples(
        st.sampled_from(PMDS),
        st.builds(pages, st.integers(0, 5), st.sampled_from((USER_DATA, USER_UNACCESSED))),
    ),
)


@settings(max_examples=60, deadline=None)  # each example builds up to four guests
@given(st.lists(leaves, min_size=1, max_size=4))
def test_whatever_comes_the_bounds_and_the_tables_hold(snapshots: list[Leaves]) -> None:
    found = {reading: series(*snapshots, reading=reading) for reading in TouchBound}
    last = tables(snapshots[-1])
    there = (last.level == LAST_LEVEL) & ~last.kernel
    for reading, one in found.items():
        assert one.trace.faults() == []
        for step in one.pairs:
            assert 0 <= step.allocated <= step.touched_at_least <= step.touched_at_most <= step.tables
        touched = sum(
            step.touched_at_least if reading is TouchBound.CERTAIN else step.touched_at_most
            for step in one.pairs
        )
        assert one.trace.touches == touched
        # Whoever frees empty tables is left with those of the last snapshot that are not empty.
        kept = int((there & (last.state != TableState.EMPTY)).sum())
        assert replay(one.trace, "empty", GIB).end_tables == kept == len(one.idle)
        assert ((one.idle >= 0) & (one.idle < len(snapshots))).all()
    # What is certain is possible.
    certain, possible = (found[reading].trace for reading in TouchBound)
    assert certain.tables == possible.tables
    for event in TouchKind:
        assert (certain.kind == event).sum() <= (possible.kind == event).sum()
    assert replay(certain, "none", GIB).cold_misses == replay(possible, "none", GIB).cold_misses

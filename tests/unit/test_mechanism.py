"""The talk's mechanism: every order of a touch and the steps of a reclaim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mechanism import Phase, TableHeap, Touched
from synthetic import USER_DATA, USER_ZERO, Guest, entry

from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.replay import replay
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import PAGE_BYTES


def test_a_reference_count_at_zero_frees_the_table() -> None:
    heap = TableHeap()
    heap.touch(5, 1)
    table = heap.parent[5]
    assert (table.references, heap.freeze(table)) == (1, False)
    heap.unmap(5, 1)
    assert heap.freeze(table)
    heap.unlink(table)
    assert 5 not in heap.parent
    assert heap.lists[0] == [table]
    heap.free(table)
    assert (heap.lists[0], heap.freed, table.phase) == ([], [table], Phase.FREED)


def test_a_touch_that_meets_a_frozen_table_retries_and_is_not_lost() -> None:
    heap = TableHeap()
    heap.touch(5, 1)
    heap.unmap(5, 1)
    old = heap.parent[5]
    heap.freeze(old)
    assert heap.touch(5, 2) is Touched.RETRY
    assert not old.entries
    heap.unlink(old)
    assert heap.touch(5, 2) is Touched.SERVED  # in a new table, though the old one is not yet freed
    heap.free(old)
    assert heap.parent[5].entries == {2}


def test_steps_in_another_order_are_refused() -> None:
    heap = TableHeap()
    heap.touch(5, 1)
    table = heap.parent[5]
    with pytest.raises(ValueError, match="live cannot be unlinked"):
        heap.unlink(table)
    with pytest.raises(ValueError, match="live cannot be freed"):
        heap.free(table)
    with pytest.raises(ValueError, match="slot 512"):
        heap.touch(5, 512)


def test_pressure_stays_within_a_memory_cgroup() -> None:
    heap = TableHeap()
    heap.touch(1, 0, memcg=7, zero=True)
    heap.touch(2, 0, memcg=7)
    heap.touch(3, 0, memcg=8, zero=True)
    gone, in_use = heap.pressure(7, 10, np.random.default_rng(0))
    assert [table.number for table in gone] == [1]
    assert [table.number for table in in_use] == [2]
    assert set(heap.parent) == {2, 3}
    # Written to, the zero page is no longer all there is.
    heap.touch(3, 0, memcg=8)
    assert heap.pressure(8, 10, np.random.default_rng(0))[0] == []


def test_pressure_takes_by_chance_and_no_more_than_asked() -> None:
    def picked(seed: int) -> list[int]:
        heap = TableHeap()
        for number in range(100):
            heap.touch(number, 0, zero=True)
        gone, in_use = heap.pressure(0, 10, np.random.default_rng(seed))
        assert not in_use
        return [table.number for table in gone]

    assert len(picked(1)) == 10
    assert picked(1) == picked(1) != picked(2)
    with pytest.raises(ValueError, match="less than none"):
        TableHeap().pressure(0, -1, np.random.default_rng(0))


STEPS = st.tuples(
    st.sampled_from(["touch", "zero", "unmap", "freeze", "unlink", "free"]),
    st.integers(0, 2),
    st.integers(0, 2),
)


@given(st.lists(STEPS, max_size=60))
def test_no_table_is_both_freed_and_mapped_and_no_page_is_lost(steps: list[tuple[str, int, int]]) -> None:
    heap = TableHeap()
    mapped: dict[tuple[int, int], bool] = {}  # what a process that wrote or read has to find; whether written
    going = []
    for step, number, slot in steps:
        table = heap.parent.get(number)
        if step in {"touch", "zero"}:
            zero = step == "zero"
            if heap.touch(number, slot, zero=zero) is Touched.SERVED:
                mapped[number, slot] = mapped.get((number, slot), False) or not zero
            else:
                assert table is not None
                assert table.phase is Phase.FROZEN
        elif step == "unmap":
            heap.unmap(number, slot)
            mapped.pop((number, slot), None)
        elif step == "freeze" and table is not None and heap.freeze(table):
            going.append(table)
        elif step == "unlink":
            for one in [one for one in going if one.number == number and one.phase is Phase.FROZEN]:
                heap.unlink(one)
                # Zeros that went with it are read again as zeros.
                mapped = {key: wrote for key, wrote in mapped.items() if key[0] != number or wrote}
        elif step == "free":
            for one in [one for one in going if one.phase is Phase.UNLINKED]:
                heap.free(one)
        found = {(one.number, at) for one in heap.parent.values() for at in one.entries}
        assert found == set(mapped)
        assert not {id(one) for one in heap.parent.values()} & {id(one) for one in heap.freed}
        assert not any(one.references for one in heap.freed)
        listed = [one for many in heap.lists.values() for one in many]
        assert not {id(one) for one in listed} & {id(one) for one in heap.freed}


TOUCHES = st.tuples(st.sampled_from(list(TouchKind)), st.integers(0, 5))


@given(st.lists(TOUCHES, max_size=60))
def test_the_replay_of_empty_frees_what_the_count_of_entries_does(
    touches: list[tuple[TouchKind, int]],
) -> None:
    heap = TableHeap()
    for event, number in touches:
        if event is not TouchKind.UNMAPPED:
            assert heap.touch(number, number, zero=event is TouchKind.READ_ZERO) is Touched.SERVED
            continue
        heap.unmap(number, number)
        table = heap.parent.get(number)
        if table is not None and heap.freeze(table):
            heap.unlink(table)
            heap.free(table)
    tables = np.array([number for _, number in touches], dtype=np.uint32)
    trace = Trace("by hand", 6, tables, np.array([event for event, _ in touches], dtype=np.uint8))
    counts = replay(trace, "empty", 6 * PAGE_BYTES)
    assert (counts.freed, counts.end_tables) == (len(heap.freed), len(heap.parent))


@given(st.lists(st.tuples(st.sampled_from(["touch", "zero", "unmap"]), st.integers(0, 5), st.integers(0, 2))))
def test_policies_over_a_snapshot_free_what_could_be_frozen(steps: list[tuple[str, int, int]]) -> None:
    heap = TableHeap()
    for step, number, slot in steps:
        if step == "unmap":
            heap.unmap(number, slot)
        else:
            heap.touch(number, slot, zero=step == "zero")
    guest = Guest(256)
    zero = guest.zero()
    frame_of = {
        number: guest.table(
            {
                slot: entry(zero, USER_ZERO) if slot in table.zero else entry(guest.anon(), USER_DATA)
                for slot in table.entries
            }
        )
        for number, table in heap.parent.items()
    }
    anchor = guest.table({0: entry(guest.anon(), USER_DATA)})
    pmd = guest.upper({511: anchor, **frame_of})
    guest.upper({0: guest.upper({0: pmd})})
    state = StateView.of(guest.snapshot())
    counted = {
        "empty": {frame_of[number] for number, table in heap.parent.items() if not table.entries},
        "zero_page": {frame_of[number] for number, table in heap.parent.items() if not table.references},
    }
    for name, frozen in counted.items():
        freed = OverSnapshot.named(name).apply(state).freed
        assert set(state.tables.pfn[freed].tolist()) == frozen

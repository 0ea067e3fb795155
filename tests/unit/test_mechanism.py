"""The talk's mechanism: every order of a touch and the steps of a reclaim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.mechanism import Phase, TableHeap, Touched, compaction_victims


def test_a_reference_count_at_zero_frees_the_table() -> None:
    heap = TableHeap()
    heap.touch(5, 1)
    table = heap.parent[5]
    assert (table.references, heap.freeze(table)) == (1, False)
    heap.let_go(5, 1)
    assert heap.freeze(table)
    heap.unlink(table)
    assert 5 not in heap.parent
    assert heap.lists[0] == [table]
    heap.free(table)
    assert (heap.lists[0], heap.freed, table.phase) == ([], [table], Phase.FREED)


def test_a_touch_that_meets_a_frozen_table_retries_and_is_not_lost() -> None:
    heap = TableHeap()
    heap.touch(5, 1)
    heap.let_go(5, 1)
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
    st.sampled_from(["touch", "zero", "let_go", "freeze", "unlink", "free"]),
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
        elif step == "let_go":
            heap.let_go(number, slot)
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


def test_compaction_empties_whole_blocks() -> None:
    """Blocks of 512 frames: one with two tables, one with one, one with slab, one with three."""
    pfn = np.array([0, 5, 512, 1024, 1536, 1537, 1538])
    slab = np.array([1030])
    assert compaction_victims(pfn, slab, 512, 2).tolist() == [512]
    assert compaction_victims(pfn, slab, 512, 3).tolist() == [0, 5, 512]
    assert compaction_victims(pfn, slab, 512, 99).tolist() == [0, 5, 512, 1536, 1537, 1538]
    assert compaction_victims(pfn, slab, 2048, 99).tolist() == []
    assert compaction_victims(pfn, slab[:0], 2048, 7).tolist() == pfn.tolist()
    with pytest.raises(ValueError, match="make no sense"):
        compaction_victims(pfn, slab, 512, -1)

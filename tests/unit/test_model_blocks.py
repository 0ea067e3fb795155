from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import ANON, LINUX_BLOCK_FRAMES, Guest, bits

from orchestrator.model.blocks import BlockMap, BlockTotals, map_blocks, map_memory
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.frames import (
    KPF_BUDDY,
    KPF_HWPOISON,
    KPF_LRU,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_UPTODATE,
    classify_frames,
)
from orchestrator.model.snapshot import Region

FREE, OFFLINE, TABLE = bits(KPF_BUDDY), bits(KPF_OFFLINE), bits(KPF_PGTABLE)
SLAB, POISON, RESERVED, OTHER = bits(KPF_SLAB), bits(KPF_HWPOISON), bits(KPF_RESERVED), 0
CACHE = bits(KPF_LRU, KPF_UPTODATE)


def block_map(*blocks: tuple[int, ...], plugged: int = 0, start: int = 6) -> BlockMap:
    """A region of blocks of four frames; missing frames are free."""
    guest = Guest(start + 4 * len(blocks))
    guest.flags[:start] = TABLE  # before the region: must not count
    for i, block in enumerate(blocks):
        guest.flags[start + 4 * i : start + 4 * i + 4] = [*block, *[FREE] * (4 - len(block))]
    region = Region("vm0", start, 4 * len(blocks), 4, plugged * 4 * 4096)
    return map_blocks(guest.snapshot((region,)), region)


@pytest.mark.parametrize(
    ("frames", "named", "alone"),
    [
        ((OFFLINE,) * 4, FrameClass.ABSENT, False),
        ((TABLE, ANON), FrameClass.PAGE_TABLE, True),
        ((TABLE, OFFLINE, OFFLINE, OFFLINE), FrameClass.PAGE_TABLE, True),
        ((TABLE, SLAB, OTHER), FrameClass.PAGE_TABLE, False),
        ((SLAB, SLAB, SLAB, TABLE), FrameClass.PAGE_TABLE, False),
        ((SLAB, OTHER), FrameClass.SLAB, False),
        ((OTHER, OTHER), FrameClass.KERNEL, True),
        ((RESERVED, ANON), FrameClass.RESERVED, True),
        ((POISON,), FrameClass.HWPOISON, True),
        ((ANON, CACHE, CACHE), FrameClass.PAGE_CACHE, False),
        ((ANON, ANON, CACHE), FrameClass.ANONYMOUS, False),
        ((), FrameClass.FREE, False),
        ((OFFLINE, OFFLINE, OFFLINE), FrameClass.FREE, False),
    ],
)
def test_what_a_block_is_named_after(frames: tuple[int, ...], named: FrameClass, alone: bool) -> None:
    blocks = block_map(frames)
    assert blocks.attributed_to.tolist() == [named]
    assert blocks.sole_blocker.tolist() == [alone]


def test_all_of_memory_as_one_region() -> None:
    guest = Guest(10)
    guest.flags[:] = FREE
    guest.flags[5] = TABLE
    memory = map_memory(guest.snapshot(), 4)
    assert memory.pinned.tolist() == [False, True, False]
    assert memory.frames_of(FrameClass.ABSENT).tolist() == [0, 0, 2], "memory ends within the last block"


def test_totals_use_the_names_of_the_headline_metrics() -> None:
    blocks = ((OFFLINE,) * 4, (TABLE,), (TABLE, SLAB), (SLAB, OTHER), (OTHER,), (TABLE, OTHER), (ANON,), ())
    assert asdict(block_map(*blocks, plugged=5).totals()) == {
        "blocks": 8,
        "blocks_plugged": 7,
        "blocks_pinned": 5,
        "blocks_pinned_page_table": 3,
        "blocks_pinned_page_table_only": 1,
        "blocks_pinned_slab": 2,
        "blocks_pinned_other": 1,
        "blocks_movable_only": 1,
        "blocks_free": 1,
        "blocks_unknown": 0,
        "plugged_mismatch_blocks": 2,
    }


def test_totals_over_regions_add_up() -> None:
    one, two = block_map((TABLE,), ()), block_map((SLAB,), plugged=1)
    both = BlockTotals.of([one, two])
    assert (both.blocks, both.blocks_plugged, both.blocks_pinned, both.plugged_mismatch_blocks) == (
        3,
        3,
        2,
        2,
    )
    assert BlockTotals.of([]) == BlockTotals()


def test_a_region_past_the_end_of_the_flags_is_absent_there() -> None:
    guest = Guest(10)
    region = Region("vm0", 6, 16, 4, 0)
    counts = map_blocks(guest.snapshot((region,)), region).counts
    assert counts[:, FrameClass.ABSENT].tolist() == [0, 4, 4, 4]
    region = Region("vm1", 4096, 16, 4, 0)
    assert not map_blocks(guest.snapshot((region,)), region).plugged.any()


def test_blocks_of_offline_memory_are_not_plugged() -> None:
    guest = Guest(2 * LINUX_BLOCK_FRAMES)
    region = Region("vm0", 0, 2 * LINUX_BLOCK_FRAMES, LINUX_BLOCK_FRAMES, 0)
    assert map_blocks(guest.snapshot((region,), online=[1]), region).plugged.tolist() == [False, True]


def test_freeing_page_tables_moves_counts_and_keeps_blocks_plugged() -> None:
    before = block_map((TABLE, TABLE), (TABLE, SLAB), (ANON,))
    after = before.after_freeing(np.array([0, 6, 7, 10, 14, 400], dtype=np.int64))  # 14 is no page table
    assert after.pinned.tolist() == [False, True, False]
    assert after.counts.sum() == before.counts.sum() == 12
    assert after.counts[:, FrameClass.FREE].tolist() == [4, 3, 3]
    assert after.plugged.all()
    assert before.pinned.tolist() == [True, True, False]  # untouched


@given(
    st.lists(
        st.lists(st.sampled_from([FREE, OFFLINE, TABLE, SLAB, POISON, OTHER, ANON, RESERVED]), max_size=4)
    )
)
def test_counts_are_conserved(blocks: list[list[int]]) -> None:
    found = block_map(*map(tuple, blocks))
    assert (found.counts.sum(axis=1) == 4).all()
    assert (found.pinned == (found.page_table | found.slab | found.other)).all()
    assert not (found.other & (found.page_table | found.slab)).any()
    assert not (found.page_table_only & ~found.page_table).any()
    states = np.stack([~found.plugged, found.pinned, found.movable_only, found.free])
    assert (states.sum(axis=0) == 1).all()
    totals = found.totals()
    parts = totals.blocks_pinned + totals.blocks_movable_only + totals.blocks_free
    assert totals.blocks_plugged == parts


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_counts_agree_with_counting(blocks: int, block_pages: int, data: st.DataObject) -> None:
    frames = blocks * block_pages + 3
    guest = Guest(frames)
    guest.flags[:] = data.draw(st.lists(st.sampled_from([FREE, TABLE, 0]), min_size=frames, max_size=frames))
    region = Region("vm0", 2, blocks * block_pages, block_pages, 0)
    snapshot = guest.snapshot((region,))
    counts = map_blocks(snapshot, region).counts
    classes = classify_frames(snapshot).tolist()
    for block in range(blocks):
        inside = classes[2 + block * block_pages : 2 + (block + 1) * block_pages]
        assert counts[block].tolist() == [inside.count(frame_class) for frame_class in FrameClass]

"""Blame: blocks whose holders the test wrote down, and what would free them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import ANON, USER_DATA, Guest, bits, entry, sparse_guest

from orchestrator.model.blame import RegionBlame, blame, huge_supply
from orchestrator.model.blocks import map_blocks, map_memory
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.frames import KPF_BUDDY, KPF_OFFLINE, KPF_PGTABLE, KPF_SLAB, KPF_SWAPBACKED
from orchestrator.model.kernel_free import KernelFree
from orchestrator.model.migration_target import PARTIAL
from orchestrator.model.policies import StateView
from orchestrator.model.snapshot import Evidence, Region

FREE, SLAB, OFFLINE = bits(KPF_BUDDY), bits(KPF_SLAB), bits(KPF_OFFLINE)
START = 64


def blamed(
    *blocks: tuple[int, ...],
    elsewhere: int = ANON,
    device: bool = False,
    kernel: KernelFree | None = None,
    notes: dict[str, str] | None = None,
) -> RegionBlame:
    """A region of blocks of four frames after `START` frames `elsewhere`; missing frames are free.

    Linux memory blocks are of 8 frames, two blocks each.
    """
    guest = Guest(START + 4 * len(blocks))
    guest.flags[:START] = elsewhere
    for i, block in enumerate(blocks):
        guest.flags[START + 4 * i : START + 4 * i + 4] = [*block, *[FREE] * (4 - len(block))]
    pages = 4 * len(blocks)
    region = Region("vm0", START, pages, 4, pages * 4096 if device else 0)
    snapshot = replace(
        guest.snapshot((region,)),
        online_block_bytes=8 * 4096,
        online_blocks=np.arange(-(-(START + pages) // 8)),
        notes=(notes or {}) | (kernel.note() if kernel else {}),
    )
    state = StateView.of(snapshot)
    return blame(state.snapshot, state.blocks[0], state.frames, state.tables)


def shares(found: RegionBlame) -> dict[str, tuple[int, int, int, int]]:
    return {
        share.frame_class.name: (share.frames, share.blocks, share.sole_blocker, share.attributed)
        for share in found.classes
    }


def test_each_class_with_others_and_alone() -> None:
    table = bits(KPF_PGTABLE)
    found = blamed((table, table), (table, SLAB), (SLAB,), (table, ANON), (0, 0), (ANON,), (), (OFFLINE,) * 4)
    assert shares(found) == {
        "PAGE_TABLE": (4, 3, 2, 3),
        "SLAB": (2, 2, 1, 1),
        "KERNEL": (2, 1, 1, 1),
        "FREE": (18, 7, 0, 1),
        "ANONYMOUS": (2, 2, 0, 1),
    }
    assert sum(share.attributed for share in found.classes) == 7, "each plugged block is named once"
    assert (found.pinned, found.pinned_by_several) == (5, 1)
    assert found.best_class is not None
    assert (found.best_class.frame_class, found.best_class.sole_blocker) == (FrameClass.PAGE_TABLE, 2)
    assert [(share.kind, share.tables, share.blocks, share.sole_blocker) for share in found.tables] == [
        ("not read", 4, 3, 2)
    ]


def test_nothing_to_blame() -> None:
    found = blamed((OFFLINE,) * 4)
    assert (found.classes, found.tables, found.best_class) == ((), (), None)
    assert (found.pinned, found.pinned_by_several, found.unexplained) == (0, 0, 0)


A, S, OUT = (ANON,), (SLAB,), (OFFLINE,)


@pytest.mark.parametrize(
    ("blocks", "elsewhere", "kept", "memory", "device"),
    [
        # Nowhere is anything free.
        ((A * 4, A * 4, S * 4), ANON, None, 2, 2),
        ((A * 4, A * 4, S * 4), FREE, None, 0, 0),
        # Free memory is beside them, in the region itself: not in their own block.
        ((A * 4, A * 2, S * 4), ANON, None, 2, 2),
        ((A * 4, A + OUT * 3, S * 2), ANON, None, 1, 2),
        ((A * 2, A, (), S + A), ANON, None, 0, 2),  # each fits, and not once the free block is unplugged
        ((A * 4, A * 4, ()), ANON, None, 0, 3),  # a memory block, asked for at once, does not fit
        ((A * 4, (), ()), ANON, None, 0, 2),  # as above
        ((A * 4, (), (), (), ()), FREE, None, 0, 0),
        # Many that would fit, one at a time: there is room for the two highest.
        ((A * 4, S * 4) * 6, ANON, None, 6, 6),
        ((A * 4, S * 4) * 6 + ((), S * 4) * 2, ANON, None, 0, 6),
        (((), S * 4) * 2 + (A * 4, S * 4) * 6, ANON, None, 0, 6),
        ((A * 4, OUT * 4, ()), ANON, None, 0, 0),
        ((A * 4, OUT * 4, A + OUT * 3), ANON, None, 2, 2),
        # All that is free is the kernel's reserve.
        ((A * 4, OUT * 4, ()), ANON, 4, 1, 2),
        ((A * 4, OUT * 4, ()), FREE, 64, 0, 0),
        ((A * 4, OUT * 4, ()), FREE, 65, 1, 2),
    ],
)
def test_movable_memory_stays_for_lack_of_room_or_unexplained(
    blocks: tuple[tuple[int, ...], ...], elsewhere: int, kept: int | None, memory: int, device: int
) -> None:
    for of_device, no_room in ((False, memory), (True, device)):
        kernel = None if kept is None else KernelFree(10**6, kept)
        found = blamed(*blocks, elsewhere=elsewhere, device=of_device, kernel=kernel)
        plugged = int(found.block_map.plugged.sum())
        assert found.no_migration_target == no_room, of_device
        assert found.unexplained == plugged - found.pinned - no_room
        assert (found.fills_guest is None) == (no_room == 0)


@pytest.mark.parametrize(
    ("kernel", "partial", "no_room"),
    [
        (None, False, 3),  # 7 frames are free, and the two blocks that are tried together have 8 to move
        (KernelFree(100), False, 3),  # the kernel has no more than flags say
        (None, True, 0),  # what is elsewhere is not in it
        (KernelFree(8), True, 2),  # the free block goes first, which is half of what is free
        (KernelFree(12), True, 0),
        (KernelFree(7), True, 3),
        (KernelFree(8, 1), True, 3),
    ],
)
def test_room_as_the_kernel_counts_it(kernel: KernelFree | None, partial: bool, no_room: int) -> None:
    notes = {PARTIAL: "a part"} if partial else {}
    assert blamed(A * 4, A * 4, (), S, device=True, kernel=kernel, notes=notes).no_migration_target == no_room


def test_free_frames_that_are_isolated_are_no_room() -> None:
    """In the middle of an attempt the block that is emptied has free frames; they are not used for others."""
    blocks = (A * 4, A * 4, S * 4, S * 4, A + (FREE,) * 3, S * 4)
    isolated = blamed(*blocks, kernel=KernelFree(0, 0))
    assert isolated.block_map.movable_only.sum() == isolated.no_migration_target == 3
    counted = blamed(*blocks, kernel=KernelFree(3, 0))
    assert counted.no_migration_target == 3, (
        "four to move, three free; and one with nothing free but beside it"
    )
    fits = blamed(*blocks, S + (FREE,) * 3, kernel=KernelFree(3, 0))
    assert fits.no_migration_target == 2, (
        "of six free frames three are isolated: one frame has room, four have not"
    )


@given(st.lists(st.lists(st.sampled_from([FREE, ANON, SLAB, 0]), min_size=4, max_size=4), max_size=6))
def test_a_whole_guest_with_a_free_block_is_not_full(blocks: list[list[int]]) -> None:
    guest = Guest(4 * len(blocks) + 4)
    guest.flags[:] = [frame for block in blocks for frame in block] + [FREE] * 4
    snapshot = guest.snapshot()
    state = StateView.of(replace(snapshot, regions=(map_memory(snapshot, 4).region,)))
    found = blame(state.snapshot, state.blocks[0], state.frames, state.tables)
    assert (found.no_migration_target, found.free > 0) == (0, True)


def test_what_fills_the_guest_accounts_for_what_stays_for_lack_of_room() -> None:
    shmem = bits(KPF_SWAPBACKED)
    blocks = ((shmem,) * 4, (shmem,) * 3 + A, (), (SLAB, shmem), S)
    full, roomy = (
        blamed(*blocks, elsewhere=elsewhere, device=True, kernel=KernelFree(10**6, 8))
        for elsewhere in (ANON, FREE)
    )
    assert (full.fills_guest, roomy.fills_guest) == (FrameClass.SHMEM, None)
    assert full.having([FrameClass.SHMEM]) == 4
    assert roomy.having([FrameClass.SHMEM]) == 3
    assert full.having([FrameClass.ANONYMOUS]) == 1


def test_frames_of_which_nothing_is_known_hold_nothing_and_free_nothing() -> None:
    """As in a dump of flags: a block with such frames is neither held by them nor free."""
    guest = Guest(5 * 4)
    guest.flags[:] = [0] * 4 + [0, ANON, FREE, FREE] + [0, SLAB, FREE, FREE] + [SLAB] * 4 + [FREE] * 4
    evidence = np.where(guest.flags == 0, Evidence.UNKNOWN, Evidence.NONE).astype(np.uint8)
    snapshot = replace(guest.snapshot((Region("vm0", 0, 20, 4, 0),)), evidence=evidence)
    state = StateView.of(snapshot)
    found = blame(state.snapshot, state.blocks[0], state.frames, state.tables)
    assert shares(found) == {
        "SLAB": (5, 2, 1, 2),
        "FREE": (8, 3, 0, 1),
        "UNKNOWN": (6, 3, 0, 2),
        "ANONYMOUS": (1, 1, 0, 0),
    }
    assert (found.pinned, found.unknown, found.without_flags, found.unexplained) == (2, 2, 1, 1)
    assert (found.pinned_by_several, found.undecided, found.no_migration_target) == (0, 1, 0)
    assert found.best_class is not None
    assert (found.best_class.frame_class, found.best_class.freeable) == (FrameClass.SLAB, 1)
    assert found.block_map.totals().blocks_unknown == 2
    assert huge_supply(map_memory(snapshot, 4)).freeable == 1


def test_tables_by_level_and_state() -> None:
    guest = Guest(64)
    guest.flags[:] = FREE
    region = Region("vm0", 32, 32, 8, 0)
    guest.table(pfn=32)
    guest.table({0: entry(2, USER_DATA)}, pfn=33)
    guest.table(pfn=40)
    guest.table({0: entry(32, 0x67), 1: entry(33, 0x67), 2: entry(40, 0x67)}, pfn=48)
    guest.table({0: entry(48, 0x67)}, pfn=1)
    guest.flags[2], guest.flags[56] = ANON, bits(KPF_PGTABLE)  # its content was not read
    snapshot = guest.snapshot((region,))
    state = StateView.of(snapshot)
    found = blame(snapshot, state.blocks[0], state.frames, state.tables)
    assert {share.kind: (share.tables, share.blocks, share.sole_blocker) for share in found.tables} == {
        "PTE, empty": (2, 2, 1),
        "PTE, valid": (1, 1, 0),
        "PMD, valid": (1, 1, 1),
        "not read": (1, 1, 1),
    }


def test_2_mib_ranges() -> None:
    guest = Guest(5 * 512)
    guest.flags[:] = FREE
    guest.flags[512] = ANON
    guest.flags[1024] = SLAB
    guest.flags[1536] = OFFLINE
    guest.flags[2048:] = 0
    evidence = np.zeros(5 * 512, dtype=np.uint8)
    evidence[2048:] = Evidence.CPU_LIST
    supply = huge_supply(map_memory(replace(guest.snapshot(), evidence=evidence)))
    assert (supply.ranges, supply.free, supply.freeable) == (4, 1, 3), "one is not the guest's any more"


@pytest.mark.slow
@settings(max_examples=10)  # each builds a guest of 1 GiB
@given(st.integers(0, 2**32 - 1), st.sampled_from([512, 1024, 4096]))
def test_the_books_balance(seed: int, block_pages: int) -> None:
    snapshot = sparse_guest(500, region_gib=1, rng=np.random.default_rng(seed))
    region = replace(snapshot.regions[0], block_pages=block_pages)
    state = StateView.of(snapshot)
    blocks = map_blocks(snapshot, region, state.frames)
    found = blame(snapshot, blocks, state.frames, state.tables)
    plugged = int(blocks.plugged.sum())
    assert sum(share.attributed for share in found.classes) == plugged
    assert found.pinned + found.no_migration_target + found.unexplained + found.unknown == plugged
    assert found.pinned_by_several + sum(share.sole_blocker for share in found.classes) == found.pinned
    assert all(share.freeable == share.sole_blocker for share in found.classes), (
        "there is no memory map to go with it"
    )
    tables = next(share for share in found.classes if share.frame_class == FrameClass.PAGE_TABLE)
    assert sum(share.tables for share in found.tables) == tables.frames
    assert sum(share.sole_blocker for share in found.tables) <= tables.sole_blocker


def with_memmap() -> RegionBlame:
    """Memory blocks of 8 frames, two blocks each; block 0 holds the struct pages of all others."""
    guest = Guest(START + 24)
    guest.flags[:] = FREE
    guest.flags[START + 1 : START + 3] = 0
    guest.flags[START + 8] = bits(KPF_PGTABLE)
    guest.flags[START + 16] = SLAB
    evidence = np.zeros(len(guest.flags), dtype=np.uint8)
    evidence[START + 1 : START + 3] = Evidence.MEMMAP
    region = Region("vm0", START, 24, 4, 0)
    snapshot = replace(
        guest.snapshot((region,)),
        evidence=evidence,
        memmap_pfn=np.array([START + 1, START + 2]),
        memmap_first=np.array([START + 8, START + 16]),
        memmap_frames=8,
        online_block_bytes=8 * 4096,
        online_blocks=np.arange(START // 8, START // 8 + 3),
    )
    assert snapshot.faults() == []
    state = StateView.of(snapshot)
    return blame(snapshot, state.blocks[0], state.frames, state.tables)


def test_struct_pages_stay_because_what_they_describe_stays() -> None:
    found = with_memmap()
    assert (found.pinned, found.pinned_by_memmap) == (3, 1)
    assert found.having([FrameClass.PAGE_TABLE]) == 2, "and block 0, which waits for it"
    assert found.having([FrameClass.PINNED]) == 0
    assert {
        share.frame_class.name: (share.sole_blocker, share.freeable) for share in found.classes if share.pins
    } == {
        "MEMMAP": (1, 1),
        "PAGE_TABLE": (1, 1),  # block 0 still describes what slab holds
        "SLAB": (1, 1),
    }


def test_struct_pages_go_with_the_last_that_held_what_they_describe() -> None:
    blocks = with_memmap().block_map
    one = blocks.without(FrameClass.SLAB)
    assert one.pinned.tolist() == [True, False, True, False, False, False]
    assert one.counts[0, FrameClass.MEMMAP] == 1
    both = one.after_freeing(np.array([START + 8]))
    assert not both.pinned.any()
    assert both.frames_of(FrameClass.FREE).sum() == 24
    assert blocks.after_freeing(np.array([], dtype=np.int64)).pinned.sum() == 3

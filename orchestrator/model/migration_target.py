"""Whether memory that can be moved has somewhere to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from orchestrator.model.blocks import BlockMap
from orchestrator.model.frame_class import MOVABLE, FrameClass
from orchestrator.model.kernel_free import KernelFree
from orchestrator.model.snapshot import I64, U8, Bool, Region, Snapshot
from orchestrator.units import PAGE_BYTES

# The note of a snapshot that does not have all frames: what lies elsewhere is not known.
PARTIAL = "partial"


@dataclass(frozen=True)
class MigrationTargets:
    """Free frames of the whole guest, and what is unplugged at once.

    `frames` are those that an ordinary allocation gets; None where that is not known. `isolated` frames are
    free beside these, and set aside for an attempt that is under way. `taken_with` (blocks,) numbers what is
    unplugged at once: blocks of the same number are tried together.
    """

    frames: int | None
    isolated: int
    taken_with: I64

    @classmethod
    def of(cls, snapshot: Snapshot, region: Region, frames: U8) -> Self:
        """`frames` is a FrameClass per frame."""
        buddy = int(np.count_nonzero(frames == FrameClass.FREE))
        on_lists = int(np.count_nonzero(frames == FrameClass.CPU_LIST))
        kernel = KernelFree.of_notes(snapshot.notes)
        taken_with = _taken_with(snapshot, region)
        if kernel is None:
            return cls(None if PARTIAL in snapshot.notes else buddy + on_lists, 0, taken_with)
        # NR_FREE_PAGES does not count free pages that are isolated (account_freepages(), mm/page_alloc.c).
        isolated = max(buddy - kernel.free, 0)
        free = kernel.free if PARTIAL in snapshot.notes else buddy - isolated
        return cls(max(free - (kernel.kept or 0), 0) + on_lists, isolated, taken_with)

    def without_target(self, block_map: BlockMap) -> Bool:
        """Blocks of movable memory that is more than is free outside of them, shape (blocks,).

        A block that fits by itself is one of them where it is tried together with others, and these do not.
        """
        stays = block_map.movable_only
        if self.frames is None:
            return np.zeros(len(stays), dtype=np.bool_)
        moves = block_map.frames_of(*MOVABLE)
        free = block_map.frames_of(FrameClass.FREE, FrameClass.CPU_LIST)
        by_itself = moves > self._outside(free)
        units, spoiled = self._units(block_map)
        all_move = np.bincount(self.taken_with, weights=moves, minlength=units).astype(np.int64)
        all_free = np.bincount(self.taken_with, weights=free, minlength=units).astype(np.int64)
        together = ~spoiled & (all_move > self._outside(all_free))
        lacking: Bool = stays & (by_itself | together[self.taken_with])
        return lacking

    def not_come_to(self, block_map: BlockMap) -> Bool:
        """Movable and free blocks that an attempt at all of them would not come to now, shape (blocks,).

        It begins with Linux memory blocks that are partially plugged, and with the highest of these, and ends
        where something does not fit into what is free by then (virtio_mem_sbm_unplug_request(),
        drivers/virtio/virtio_mem.c). By itself each may fit.
        """
        candidate = block_map.movable_only | block_map.free
        if self.frames is None or not candidate.any():
            return np.zeros(len(candidate), dtype=np.bool_)
        units, spoiled = self._units(block_map)
        partial = np.bincount(self.taken_with[~block_map.plugged], minlength=units) > 0
        blocks = np.arange(len(candidate), dtype=np.int64)
        in_turn = np.lexsort((-blocks, ~partial[self.taken_with]))
        # Blocks that are not tried together are units of their own.
        unit = np.where(spoiled[self.taken_with], units + blocks, self.taken_with)[in_turn]
        begins = np.append(True, unit[1:] != unit[:-1])
        turn = np.empty_like(blocks)
        turn[in_turn] = np.cumsum(begins) - 1
        moves = np.where(candidate, block_map.frames_of(*MOVABLE), 0)
        free = np.where(candidate, block_map.frames_of(FrameClass.FREE, FrameClass.CPU_LIST), 0)
        taken = np.cumsum(np.bincount(turn, weights=moves + free))
        full = (np.bincount(turn, weights=moves) > 0) & (taken > self.frames + self.isolated)
        beyond: Bool = candidate & (turn >= np.argmax(full)) & full.any()
        return beyond

    def _units(self, block_map: BlockMap) -> tuple[int, Bool]:
        """How many numbers `taken_with` has, and which of them have a block that cannot be emptied."""
        units = int(self.taken_with.max(initial=-1)) + 1
        held = ~block_map.movable_only & ~block_map.free
        return units, np.bincount(self.taken_with[held], minlength=units) > 0

    def _outside(self, free: I64) -> I64:
        """Frames to be had outside of what has `free` frames itself."""
        outside: I64 = (self.frames or 0) - np.maximum(free - self.isolated, 0)
        return outside


def _taken_with(snapshot: Snapshot, region: Region) -> I64:
    """Numbers of what is unplugged at once, by block.

    virtio-mem first asks for a Linux memory block whose blocks are all plugged in one go, and for single
    blocks only if that one is busy (virtio_mem_sbm_unplug_any_sb_online(), drivers/virtio/virtio_mem.c).
    Where memory belongs to no device, each block stands for itself.
    """
    blocks = np.arange(region.blocks, dtype=np.int64)
    if not region.plugged_bytes:
        return blocks
    frames = snapshot.online_block_bytes // PAGE_BYTES
    starts = region.start_pfn + blocks * region.block_pages
    return starts // frames - region.start_pfn // frames

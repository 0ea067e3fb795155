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
        units = int(self.taken_with.max(initial=-1)) + 1
        spoiled = np.bincount(self.taken_with[~stays & ~block_map.free], minlength=units) > 0
        all_move = np.bincount(self.taken_with, weights=moves, minlength=units).astype(np.int64)
        all_free = np.bincount(self.taken_with, weights=free, minlength=units).astype(np.int64)
        together = ~spoiled & (all_move > self._outside(all_free))
        lacking: Bool = stays & (by_itself | together[self.taken_with])
        return lacking

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

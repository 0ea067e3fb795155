"""Device blocks of a resizable region: which are plugged, and what keeps them from being unplugged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from orchestrator.model.frame_class import MOVABLE, N_FRAME_CLASSES, UNMOVABLE, FrameClass
from orchestrator.model.frames import classify_frames
from orchestrator.model.snapshot import I32, I64, U8, Bool, Region, Snapshot
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

_OTHER_UNMOVABLE = tuple(c for c in UNMOVABLE if c not in {FrameClass.PAGE_TABLE, FrameClass.SLAB})


@dataclass(frozen=True)
class BlockTotals:
    """Counts of blocks, over one region or several.

    blocks_plugged = blocks_pinned + blocks_movable_only + blocks_free + blocks_unknown, so that plugged
    blocks that contain nothing unmovable show up by themselves: after an unplug they are what flags do not
    explain. blocks_unknown is 0 but in dumps of flags.
    blocks_pinned_page_table and blocks_pinned_slab may overlap; blocks_pinned_other are the pinned ones
    with neither: blocks_pinned = |page_table or slab| + blocks_pinned_other.
    """

    blocks: int = 0
    blocks_plugged: int = 0  # not wholly OFFLINE or ABSENT
    blocks_pinned: int = 0  # plugged, with at least one unmovable frame
    blocks_pinned_page_table: int = 0
    blocks_pinned_page_table_only: int = 0  # page tables are the only unmovable class
    blocks_pinned_slab: int = 0
    blocks_pinned_other: int = 0
    blocks_movable_only: int = 0  # plugged, something in use, nothing unmovable
    blocks_free: int = 0  # plugged, nothing in use
    blocks_unknown: int = 0  # plugged, nothing unmovable seen, and a frame of which nothing is known
    plugged_mismatch_blocks: int = 0  # seen plugged minus what QEMU says is plugged

    @classmethod
    def of(cls, maps: Iterable[BlockMap]) -> Self:
        """The sum over the maps of several regions."""
        totals = [block_map.totals() for block_map in maps]
        return cls(**{f.name: sum(getattr(t, f.name) for t in totals) for f in fields(cls)})


@dataclass(frozen=True)
class Memmap:
    """Frames of a region that contain memmap of the same region, and what they wait for.

    Linux adds and removes memory in memory blocks of its own size. Row i (of m): a frame in block
    `block[i]` describes frames of memory block `describes[i]`, and is freed with that memory block
    (offline_and_remove_memory(), which virtio-mem calls once nothing of it is plugged). `lies_in` (blocks,)
    is the memory block that each block is a part of, or begins in.
    """

    block: I64
    describes: I64
    lies_in: I64

    @property
    def memory_blocks(self) -> int:
        """How many memory blocks there are in all. A block may be larger than these, and be many of them."""
        return int(max(self.lies_in.max(initial=0), self.describes.max(initial=0))) + 1


@dataclass(frozen=True)
class BlockMap:
    """`counts` is the number of frames by block and FrameClass, shape (blocks, classes).

    The masks derived from it have shape (blocks,). Two things look alike from flags, which
    `plugged_mismatch_blocks` brings to light: a block whose frames are all in the balloon reads as
    unplugged, and so does a plugged one in a Linux memory block that is offline.
    """

    region: Region
    counts: I32
    memmap: Memmap | None = None

    @property
    def plugged(self) -> Bool:
        """At least one frame is neither OFFLINE nor ABSENT."""
        return self.frames_of(FrameClass.OFFLINE, FrameClass.ABSENT) < self.region.block_pages

    @property
    def pinned(self) -> Bool:
        """At least one frame cannot be moved."""
        return self.frames_of(*UNMOVABLE) > 0

    @property
    def page_table(self) -> Bool:
        """At least one frame is a page table."""
        return self.frames_of(FrameClass.PAGE_TABLE) > 0

    @property
    def slab(self) -> Bool:
        """At least one frame is slab."""
        return self.frames_of(FrameClass.SLAB) > 0

    @property
    def has_other(self) -> Bool:
        """At least one frame is unmovable and neither page table nor slab."""
        return self.frames_of(*_OTHER_UNMOVABLE) > 0

    @property
    def page_table_only(self) -> Bool:
        """Page tables are all that cannot be moved."""
        return self.page_table & ~self.slab & ~self.has_other & ~self._undecided

    @property
    def other(self) -> Bool:
        """Pinned, and by neither a page table nor slab."""
        return self.has_other & ~self.page_table & ~self.slab

    @property
    def movable_only(self) -> Bool:
        """Plugged and in use, with nothing that could not be moved."""
        return ~self.pinned & ~self._undecided & (self.frames_of(*MOVABLE) > 0)

    @property
    def free(self) -> Bool:
        """Plugged with nothing in use; frames that are OFFLINE in it do not count as use."""
        return self.plugged & ~self.pinned & ~self.movable_only & ~self.unknown

    @property
    def unknown(self) -> Bool:
        """Plugged with nothing seen that cannot be moved, and with a frame that may be such."""
        return self.plugged & ~self.pinned & self._undecided

    @property
    def _undecided(self) -> Bool:
        return self.frames_of(FrameClass.UNKNOWN) > 0

    @property
    def sole_blocker(self) -> Bool:
        """One class is all that cannot be moved: without it, the block would come free."""
        one: Bool = (self.counts[:, UNMOVABLE] > 0).sum(axis=1) == 1
        return one & ~self._undecided

    @property
    def pinned_by_several(self) -> Bool:
        """Several classes cannot be moved: no single one, gone, frees the block."""
        several: Bool = (self.counts[:, UNMOVABLE] > 0).sum(axis=1) > 1
        return several

    @property
    def attributed_to(self) -> U8:
        """The FrameClass that each block is named after.

        The first of UNMOVABLE that is in it; else UNKNOWN where a frame of it is; else the movable class
        with most frames; else FREE, or ABSENT where the block is not plugged.
        """
        most = np.array(MOVABLE, dtype=np.uint8)[self.counts[:, MOVABLE].argmax(axis=1)]
        first = np.array(UNMOVABLE, dtype=np.uint8)[(self.counts[:, UNMOVABLE] > 0).argmax(axis=1)]
        names = np.where(self.pinned, first, np.where(self.movable_only, most, np.uint8(FrameClass.FREE)))
        names[self.unknown] = FrameClass.UNKNOWN
        names[~self.plugged] = FrameClass.ABSENT
        return names.astype(np.uint8)

    @property
    def plugged_mismatch_blocks(self) -> int:
        """Blocks seen plugged minus the blocks that QEMU says are plugged."""
        block_bytes = self.region.block_pages * PAGE_BYTES
        return int(self.plugged.sum()) - self.region.plugged_bytes // block_bytes

    def frames_of(self, *classes: FrameClass) -> I64:
        """Frames of any of `classes` per block."""
        frames: I64 = self.counts[:, classes].sum(axis=1, dtype=np.int64)
        return frames

    def after_freeing(self, pfn: I64) -> BlockMap:
        """The map once the page tables at frames `pfn` are free; frames elsewhere are ignored.

        Free is then also the memmap of memory blocks that nothing pins any more.
        """
        inside = pfn[(pfn >= self.region.start_pfn) & (pfn < self.region.start_pfn + self.region.pages)]
        block = (inside - self.region.start_pfn) // self.region.block_pages
        freed = np.bincount(block, minlength=len(self.counts)).astype(np.int32)
        # A frame that a running guest gave another use before its flags were read stays what it is.
        freed = np.minimum(freed, self.counts[:, FrameClass.PAGE_TABLE])
        counts = self.counts.copy()
        counts[:, FrameClass.PAGE_TABLE] -= freed
        counts[:, FrameClass.FREE] += freed
        return self._without_memmap(counts)

    def without(self, frame_class: FrameClass) -> BlockMap:
        """The map once no frame of a class is left."""
        counts = self.counts.copy()
        counts[:, FrameClass.FREE] += counts[:, frame_class]
        counts[:, frame_class] = 0
        return self._without_memmap(counts)

    @property
    def pinned_by_memmap(self) -> Bool:
        """Pinned by memmap only, of memory that something else pins: they stay because that stays."""
        if self.memmap is None:
            return np.zeros(len(self.counts), dtype=np.bool_)
        only = self.sole_blocker & (self.frames_of(FrameClass.MEMMAP) > 0)
        held = np.zeros(self.memmap.memory_blocks, dtype=np.bool_)
        held[self.memmap.lies_in[self.plugged & self.pinned & ~only]] = True
        found = np.zeros(len(self.counts), dtype=np.bool_)
        found[self.memmap.block[held[self.memmap.describes]]] = True
        return only & found

    def _without_memmap(self, counts: I32) -> BlockMap:
        """The map with these counts, less the struct pages of memory blocks that came free by them."""
        after = BlockMap(self.region, counts, self.memmap)
        if self.memmap is None:
            return after
        blocks = self.memmap.memory_blocks
        before = np.bincount(self.memmap.lies_in[self.plugged & self.pinned], minlength=blocks)
        counted = np.zeros(len(self.memmap.block), dtype=np.bool_)
        while True:
            now = np.bincount(self.memmap.lies_in[after.plugged & after.pinned], minlength=blocks)
            gone = (before > 0) & (now == 0)
            freed = gone[self.memmap.describes] & ~counted
            if not freed.any():
                return after
            counted |= freed
            less = np.bincount(self.memmap.block[freed], minlength=len(counts)).astype(np.int32)
            less = np.minimum(less, after.counts[:, FrameClass.MEMMAP])
            counts = after.counts.copy()
            counts[:, FrameClass.MEMMAP] -= less
            counts[:, FrameClass.FREE] += less
            after = BlockMap(self.region, counts, self.memmap)

    def totals(self) -> BlockTotals:
        """Counts of blocks under the names of the headline metrics."""
        return BlockTotals(
            blocks=len(self.counts),
            blocks_plugged=int(self.plugged.sum()),
            blocks_pinned=int(self.pinned.sum()),
            blocks_pinned_page_table=int(self.page_table.sum()),
            blocks_pinned_page_table_only=int(self.page_table_only.sum()),
            blocks_pinned_slab=int(self.slab.sum()),
            blocks_pinned_other=int(self.other.sum()),
            blocks_movable_only=int(self.movable_only.sum()),
            blocks_free=int(self.free.sum()),
            blocks_unknown=int(self.unknown.sum()),
            plugged_mismatch_blocks=self.plugged_mismatch_blocks,
        )


def map_blocks(snapshot: Snapshot, region: Region, classes: U8 | None = None) -> BlockMap:
    """Count frame classes by device block. `classes` saves classifying the frames a second time."""
    classes = classify_frames(snapshot) if classes is None else classes
    inside = classes[region.start_pfn : region.start_pfn + region.pages]
    block = np.arange(len(inside), dtype=np.int64) // region.block_pages
    cells = np.bincount(block * N_FRAME_CLASSES + inside, minlength=region.blocks * N_FRAME_CLASSES)
    counts = cells.reshape(region.blocks, N_FRAME_CLASSES).astype(np.int32)
    # /proc/kpageflags ends at the highest frame that was ever added; the rest of the region is absent.
    counts[:, FrameClass.ABSENT] += region.block_pages - counts.sum(axis=1, dtype=np.int32)
    return BlockMap(region, counts, _memmap(snapshot, region))


def _memmap(snapshot: Snapshot, region: Region) -> Memmap | None:
    """The part of the memory map that lies in the region and describes it; None if there is none."""
    last = region.start_pfn + region.pages
    pfn, first = snapshot.memmap_pfn, snapshot.memmap_first
    inside = (pfn >= region.start_pfn) & (pfn < last) & (first >= region.start_pfn) & (first < last)
    if not inside.any():
        return None
    frames = snapshot.online_block_bytes // PAGE_BYTES
    base = region.start_pfn // frames
    starts = region.start_pfn + np.arange(region.blocks, dtype=np.int64) * region.block_pages
    return Memmap(
        block=(pfn[inside] - region.start_pfn) // region.block_pages,
        describes=first[inside] // frames - base,
        lies_in=starts // frames - base,
    )


def map_memory(
    snapshot: Snapshot, block_pages: int = ENTRIES_PER_TABLE, classes: U8 | None = None
) -> BlockMap:
    """All of the guest's memory in aligned blocks of `block_pages`, as if it were one region."""
    pages = -(-len(snapshot.flags) // block_pages) * block_pages
    return map_blocks(snapshot, Region("memory", 0, pages, block_pages, plugged_bytes=0), classes)

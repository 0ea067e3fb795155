"""Which blocks of a running machine could be taken offline or unplugged now, and what pins each other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Self

import numpy as np

from orchestrator.model.blame import RegionBlame
from orchestrator.model.blocks import BlockMap
from orchestrator.model.frame_class import MOVABLE, N_FRAME_CLASSES, UNMOVABLE, FrameClass
from orchestrator.model.live_memory import CELL_PAGES, LiveMemory
from orchestrator.model.memory_blocks import MemoryBlock
from orchestrator.model.snapshot import I64, U8, Bool, Region
from orchestrator.procfs import Zone
from orchestrator.units import PAGE_BYTES

NO_ZONE = -1


class BlockState(IntEnum):
    """What can be said of a block now; each has one."""

    OFFLINE = 0  # its memory block is offline, or all of it is unplugged or in the balloon
    PINNED = 1  # a frame that cannot be moved
    REFUSED = 2  # none, and it spans several zones or has a hole: the kernel refuses
    UNKNOWN = 3  # none that is known, and frames without a flag
    MOVABLE = 4  # free and movable frames only
    FREE = 5  # free frames only


LETS_GO = (BlockState.MOVABLE, BlockState.FREE)


@dataclass(frozen=True)
class CgroupShare:
    """What a memory cgroup has. `inode` is 0 for what none is charged with.

    `blocks` have an unmovable frame of it, and in `sole_owner` of them all unmovable frames are its own.
    `frames` counts by FrameClass, shape (classes,).
    """

    inode: int
    blocks: int
    sole_owner: int
    frames: I64

    @property
    def unmovable(self) -> int:
        """Frames that cannot be moved."""
        return int(self.frames[list(UNMOVABLE)].sum())

    @property
    def movable(self) -> int:
        """Frames that have to be moved."""
        return int(self.frames[list(MOVABLE)].sum())


@dataclass(frozen=True)
class ZoneShare:
    """The blocks of one zone by BlockState, shape (states,), their frames by FrameClass, shape (classes,).

    `zone` is None for blocks whose zone is not known, as that of memory that is offline.
    """

    zone: Zone | None
    states: I64
    frames: I64

    @property
    def unmovable(self) -> int:
        """Frames that cannot be moved."""
        return int(self.frames[list(UNMOVABLE)].sum())

    def blocks(self, *states: BlockState) -> int:
        """Blocks in one of `states`."""
        return int(self.states[list(states)].sum())


@dataclass(frozen=True)
class LiveBlame:
    """A machine's memory in blocks of one size, arrays of shape (blocks,).

    `first` is a block's first frame, `state` a BlockState, `zone` an index into `zones` or NO_ZONE, of the
    highest zone in it. `room` is the free frames that an ordinary allocation gets.
    """

    memory: LiveMemory
    region: RegionBlame
    first: I64
    state: U8
    zone: I64
    zones: tuple[Zone, ...]
    room: int
    _block_of_cell: I64

    @classmethod
    def of(cls, memory: LiveMemory, zones: Sequence[Zone], room: int, block_pages: int) -> Self:
        """`block_pages`: a power of two, of a cell at least."""
        blocks = memory.blocks
        cells = max(blocks.block_bytes // (CELL_PAGES * PAGE_BYTES), 1)
        starts = np.array([one.first for one in blocks.blocks], dtype=np.int64)
        cell_first = (starts[:, None] + np.arange(cells) * CELL_PAGES).reshape(-1)
        first, block_of_cell = np.unique(cell_first // block_pages * block_pages, return_inverse=True)
        counts = np.zeros((len(first), N_FRAME_CLASSES), dtype=np.int32)
        np.add.at(counts, block_of_cell, memory.counts)
        counts[:, FrameClass.ABSENT] += (block_pages - counts.sum(axis=1)).astype(np.int32)
        pages = len(first) * block_pages
        block_map = BlockMap(Region("memory", 0, pages, block_pages, plugged_bytes=0), counts)
        cell_zone = _zones_of(blocks.blocks, cells, zones, cell_first)
        zone = np.full(len(first), NO_ZONE, dtype=np.int64)
        np.maximum.at(zone, block_of_cell, cell_zone)
        refused = np.zeros(len(first), dtype=np.bool_)
        if block_pages * PAGE_BYTES >= blocks.block_bytes:
            per_cell = np.repeat(np.array([one.refused for one in blocks.blocks], dtype=np.bool_), cells)
            np.logical_or.at(refused, block_of_cell, per_cell)
        of_movable = np.array([*(one.movable for one in zones), False])[zone]
        state = _states(block_map, refused, of_movable)
        region = RegionBlame.of_counts(block_map, room)
        return cls(memory, region, first, state, zone, tuple(zones), room, block_of_cell)

    def count(self, *states: BlockState) -> int:
        """Blocks in one of `states`."""
        return int(np.isin(self.state, states).sum())

    @cached_property
    def together(self) -> int:
        """How many of those that could be taken now could be taken all together.

        What they hold has to fit into what is free outside of them; nothing is reclaimed for it.
        """
        block_map = self.region.block_map
        lets_go = np.isin(self.state, LETS_GO)
        moves = np.sort(block_map.frames_of(*MOVABLE)[lets_go])
        # With few movable frames come many free ones, which are no room any more: taken is the whole block.
        order = np.argsort(block_map.frames_of(*MOVABLE)[lets_go], kind="stable")
        free = block_map.frames_of(FrameClass.FREE, FrameClass.CPU_LIST)[lets_go][order]
        fits = np.cumsum(moves) <= np.maximum(self.room - np.cumsum(free), 0)
        return int(np.count_nonzero(fits | (moves == 0)))

    @cached_property
    def zone_shares(self) -> tuple[ZoneShare, ...]:
        """By zone, those that have a block; blocks without a zone last."""
        found = []
        for number in [*range(len(self.zones)), NO_ZONE]:
            inside = self.zone == number
            if inside.any():
                states = np.bincount(self.state[inside], minlength=len(BlockState)).astype(np.int64)
                frames = self.region.block_map.counts[inside].sum(axis=0, dtype=np.int64)
                found.append(ZoneShare(None if number == NO_ZONE else self.zones[number], states, frames))
        return tuple(found)

    @cached_property
    def cgroup_shares(self) -> tuple[CgroupShare, ...]:
        """By memory cgroup, those with most blocks first; what none is charged with is one of them."""
        pins, cgroups = self.memory.pins, len(self.memory.inodes)
        key = self._block_of_cell[pins.cell] * cgroups + pins.cgroup
        rows, which = np.unique(key, return_inverse=True)
        frames = np.zeros(len(rows), dtype=np.int64)
        np.add.at(frames, which, pins.frames)
        whole = self.region.block_map.frames_of(*UNMOVABLE)
        alone = frames == whole[rows // cgroups]
        blocks = np.bincount(rows % cgroups, minlength=cgroups)
        only = np.bincount(rows[alone] % cgroups, minlength=cgroups)
        shares = [
            CgroupShare(inode, int(blocks[row]), int(only[row]), self.memory.owners[row])
            for row, inode in enumerate(self.memory.inodes)
        ]
        return tuple(sorted(shares, key=lambda one: (-one.blocks, -one.movable)))

    @property
    def unmovable_frames(self) -> int:
        """Frames that cannot be moved, in all blocks."""
        return int(self.region.block_map.frames_of(*UNMOVABLE).sum())

    @cached_property
    def kernel_zone_pinned(self) -> int:
        """Pinned blocks outside of ZONE_MOVABLE."""
        return sum(
            share.blocks(BlockState.PINNED)
            for share in self.zone_shares
            if share.zone is None or not share.zone.movable
        )

    @property
    def least_pinned(self) -> int:
        """*Modelled*: the fewest blocks that the unmovable frames would fit into, side by side."""
        return -(-self.unmovable_frames // self.region.block_map.region.block_pages)


def _states(block_map: BlockMap, refused: Bool, of_movable: Bool) -> U8:
    """A BlockState for each block.

    In ZONE_MOVABLE frames without a flag keep nothing: has_unmovable_pages() (mm/page_isolation.c) lets all
    pass there that is not reserved, and the zone takes no unmovable allocation.
    """
    state = np.full(len(refused), BlockState.FREE, dtype=np.uint8)
    in_use = block_map.frames_of(*MOVABLE, FrameClass.UNKNOWN) > 0
    state[in_use] = BlockState.MOVABLE
    state[block_map.unknown & ~of_movable] = BlockState.UNKNOWN
    state[refused] = BlockState.REFUSED
    state[block_map.pinned] = BlockState.PINNED
    state[~block_map.plugged] = BlockState.OFFLINE
    return state


def _zones_of(blocks: Sequence[MemoryBlock], cells: int, zones: Sequence[Zone], first: I64) -> I64:
    """The zone of each cell: that of its memory block, or if this spans several, the one that it lies in."""
    found = np.full(len(first), NO_ZONE, dtype=np.int64)
    by_name = {(zone.node, zone.name): number for number, zone in reversed(list(enumerate(zones)))}
    anywhere = {zone.name: number for number, zone in reversed(list(enumerate(zones)))}
    last = first + CELL_PAGES - 1  # the first frame of all belongs to no zone
    for number, zone in enumerate(zones):
        span = (last >= zone.start_pfn) & (last < zone.start_pfn + zone.spanned)
        found[span & (found == NO_ZONE)] = number
    for index, block in enumerate(blocks):
        here = slice(index * cells, (index + 1) * cells)
        if not block.online:
            found[here] = NO_ZONE
        elif block.zones:
            name = block.zones[0]
            found[here] = by_name.get((block.node, name), anywhere.get(name, NO_ZONE))
    return found

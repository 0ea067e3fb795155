"""What pins each block, what would free it, and how many huge pages memory could supply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from orchestrator.model.blocks import BlockMap
from orchestrator.model.frame_class import MOVABLE, UNMOVABLE, FrameClass
from orchestrator.model.migration_target import MigrationTargets
from orchestrator.model.snapshot import I64, U8, Bool, Snapshot
from orchestrator.model.tables import TOP_LEVEL, Tables, TableState

# Levels of a table as x86 names them; 0 is a table that nothing points at.
LEVEL_NAMES = ("level unknown", "PTE", "PMD", "PUD", "P4D", "PGD")
STATE_NAMES = {
    TableState.EMPTY: "empty",
    TableState.ZERO_ONLY: "zero page only",
    TableState.VALID: "valid",
    TableState.DEPOSITED: "deposited for a huge page",
}
NOT_READ = "not read"

_STATES = len(TableState)
_KINDS = (TOP_LEVEL + 1) * _STATES + 1  # and one for tables whose content was not read


def table_kind_name(kind: int) -> str:
    """`PMD, empty`; `kind` indexes the columns of `RegionBlame.table_kinds`."""
    if kind == _KINDS - 1:
        return NOT_READ
    return f"{LEVEL_NAMES[kind // _STATES]}, {STATE_NAMES[TableState(kind % _STATES)]}"


@dataclass(frozen=True)
class ClassCount:
    """One class of frames, over the plugged blocks of a region.

    `attributed` counts each block once: the sum over all classes is the number of plugged blocks.
    """

    frame_class: FrameClass
    frames: int
    blocks: int  # that have at least one such frame
    sole_blocker: int  # where this class is all that is unmovable
    freeable: int  # that would be free without this class, and struct pages that go with them
    attributed: int  # that are attributed to it

    @property
    def pins(self) -> bool:
        """Whether frames of this class can keep a block."""
        return self.frame_class in UNMOVABLE


@dataclass(frozen=True)
class TableCount:
    """Page tables of one level and state, over the plugged blocks of a region."""

    kind: str
    tables: int
    blocks: int  # that have at least one
    sole_blocker: int  # where such tables are all that cannot be moved


@dataclass(frozen=True)
class RegionBlame:
    """Why the plugged blocks of a region stay.

    `table_kinds` counts page tables by block and kind, shape (blocks, kinds).
    """

    block_map: BlockMap
    table_kinds: I64
    room: MigrationTargets

    @classmethod
    def of_counts(cls, block_map: BlockMap, room: int) -> Self:
        """Of counts alone: no page table was read, each block is taken by itself, `room` frames are free."""
        kinds = np.zeros((len(block_map.counts), _KINDS), dtype=np.int64)
        kinds[:, -1] = block_map.frames_of(FrameClass.PAGE_TABLE)
        alone = np.arange(len(block_map.counts), dtype=np.int64)
        return cls(block_map, kinds, MigrationTargets(room, 0, alone))

    @cached_property
    def classes(self) -> tuple[ClassCount, ...]:
        """Every class that is in a plugged block, those that pin blocks first, most blocks first."""
        plugged, counts = self.block_map.plugged, self.block_map.counts
        attributed_to, sole_blocker = self.block_map.attributed_to, self.block_map.sole_blocker
        shares = []
        for frame_class in FrameClass:
            inside = plugged & (counts[:, frame_class] > 0)
            names = int((plugged & (attributed_to == frame_class)).sum())
            if frame_class is FrameClass.ABSENT or not (inside.any() or names):
                continue
            shares.append(
                ClassCount(
                    frame_class,
                    frames=int(counts[inside, frame_class].sum()),
                    blocks=int(inside.sum()),
                    sole_blocker=int((inside & sole_blocker).sum()) if frame_class in UNMOVABLE else 0,
                    freeable=self._frees(frame_class) if frame_class in UNMOVABLE else 0,
                    attributed=names,
                )
            )
        return tuple(sorted(shares, key=lambda share: (not share.pins, -share.blocks)))

    @cached_property
    def tables(self) -> tuple[TableCount, ...]:
        """Page tables by level and state, most blocks first."""
        plugged, only = self.block_map.plugged, self.block_map.page_table_only
        kinds_in_block = (self.table_kinds > 0).sum(axis=1)
        shares = []
        for kind in range(_KINDS):
            inside = plugged & (self.table_kinds[:, kind] > 0)
            if inside.any():
                shares.append(
                    TableCount(
                        table_kind_name(kind),
                        tables=int(self.table_kinds[inside, kind].sum()),
                        blocks=int(inside.sum()),
                        sole_blocker=int((inside & only & (kinds_in_block == 1)).sum()),
                    )
                )
        return tuple(sorted(shares, key=lambda share: -share.blocks))

    @property
    def pinned(self) -> int:
        """Plugged blocks with at least one frame that cannot be moved."""
        return int((self.block_map.plugged & self.block_map.pinned).sum())

    @property
    def pinned_by_several(self) -> int:
        """Pinned blocks with several unmovable classes: without one of them they are not free."""
        return int((self.block_map.plugged & self.block_map.pinned_by_several).sum())

    @property
    def no_migration_target(self) -> int:
        """Blocks that stay because memory elsewhere is full: movable frames have nowhere to go.

        Of a device, where one such block is met, free ones count and those that would fit, too: virtio-mem
        gives the whole attempt up when it finds no memory to move pages to (-ENOMEM in virtio_mem_run_wq(),
        drivers/virtio/virtio_mem.c), and does not come to them. It waits before the next attempt
        (VIRTIO_MEM_RETRY_TIMER_MIN_MS there: 50 s), and if a little became free meanwhile, each may fit while
        all do not: then those count that it would not come to.
        """
        lacking = int(self.room.without_target(self.block_map).sum())
        if not self.block_map.region.plugged_bytes:
            return lacking
        return self._movable_only + self.free if lacking else int(self.room.not_come_to(self.block_map).sum())

    @property
    def unexplained(self) -> int:
        """Plugged blocks that nothing read pins: movable frames with a migration target, or free ones."""
        return self._movable_only + self.free - self.no_migration_target

    @property
    def free(self) -> int:
        """Plugged blocks with nothing in use that were not unplugged."""
        return int(self.block_map.free.sum())

    @property
    def undecided(self) -> int:
        """Pinned blocks with one unmovable class, and frames of which nothing is known."""
        return (
            self.pinned
            - self.pinned_by_several
            - int((self.block_map.plugged & self.block_map.sole_blocker).sum())
        )

    @property
    def without_flags(self) -> int:
        """Blocks of which nothing at all is known: no frame has a flag."""
        whole = self.block_map.frames_of(FrameClass.UNKNOWN) == self.block_map.region.block_pages
        return int(whole.sum())

    @property
    def best_class(self) -> ClassCount | None:
        """The single class that, gone, frees most blocks; None if no class does."""
        classes = [share for share in self.classes if share.freeable]
        return max(classes, key=lambda share: share.freeable) if classes else None

    @property
    def pinned_by_memmap(self) -> int:
        """Blocks pinned by nothing but memmap of memory that something else pins."""
        return int((self.block_map.plugged & self.block_map.pinned_by_memmap).sum())

    @property
    def fills_guest(self) -> FrameClass | None:
        """The movable class that most of the memory without room elsewhere is; None where there is room."""
        if not self.no_migration_target:
            return None
        stays = self.block_map.plugged & self.block_map.movable_only
        return max(MOVABLE, key=lambda one: int(self.block_map.frames_of(one)[stays].sum()))

    @property
    def unknown(self) -> int:
        """Plugged blocks with frames of which nothing is known, and nothing read that would pin them."""
        return int(self.block_map.unknown.sum())

    def having(self, classes: Sequence[FrameClass]) -> int:
        """Plugged blocks that one of `classes` accounts for.

        Those with a frame of it; those that have memmap of memory with such blocks and nothing else;
        and, if it is what fills the guest, those that stay for lack of room.
        """
        block_map = self.block_map
        inside = block_map.plugged & (block_map.frames_of(*classes) > 0)
        if self.fills_guest in classes:
            inside |= block_map.movable_only | block_map.free
        memmap = block_map.memmap
        if memmap is not None:
            holding = np.zeros(int(memmap.lies_in.max(initial=0)) + 1, dtype=np.bool_)
            holding[memmap.lies_in[inside]] = True
            follows = np.zeros(len(inside), dtype=np.bool_)
            follows[memmap.block[holding[memmap.describes]]] = True
            inside |= block_map.plugged & block_map.pinned_by_memmap & follows
        return int(inside.sum())

    def _frees(self, frame_class: FrameClass) -> int:
        held = self.block_map.plugged & self.block_map.pinned
        after = self.block_map.without(frame_class)
        return int((held & ~after.pinned & ~after.unknown).sum())

    @property
    def _movable_only(self) -> int:
        return int((self.block_map.plugged & self.block_map.movable_only).sum())


def blame(snapshot: Snapshot, block_map: BlockMap, frames: U8, tables: Tables) -> RegionBlame:
    """Blame for one map of blocks. `frames` is a FrameClass per frame, `tables` what is known of tables."""
    kinds = _table_kinds(snapshot, block_map, frames, tables)
    return RegionBlame(block_map, kinds, MigrationTargets.of(snapshot, block_map.region, frames))


def _table_kinds(snapshot: Snapshot, block_map: BlockMap, frames: U8, tables: Tables) -> I64:
    region = block_map.region
    first, last = region.start_pfn, region.start_pfn + region.pages
    pfn = np.flatnonzero(frames[first:last] == FrameClass.PAGE_TABLE).astype(np.int64) + first
    kind = np.full(len(pfn), _KINDS - 1, dtype=np.int64)
    if len(tables):
        at = np.minimum(np.searchsorted(snapshot.table_pfn, pfn), len(tables) - 1)
        read = snapshot.table_pfn[at] == pfn
        kind[read] = tables.level[at[read]].astype(np.int64) * _STATES + tables.state[at[read]]
    block = (pfn - first) // region.block_pages
    cells = np.bincount(block * _KINDS + kind, minlength=region.blocks * _KINDS)
    return cells.reshape(region.blocks, _KINDS)


@dataclass(frozen=True)
class HugeSupply:
    """Aligned ranges of 2 MiB of the whole guest: what a huge page could be made of.

    `ranges` are wholly online, and neither unplugged nor in the balloon; of them `free` are free now, and
    `freeable` have no unmovable page, so that compaction could empty them (free ones included).
    """

    ranges: int
    free: int
    freeable: int


def huge_supply(memory: BlockMap) -> HugeSupply:
    """Count in a map of all memory (`map_memory`) with blocks of 2 MiB."""
    gone = memory.frames_of(FrameClass.OFFLINE, FrameClass.ABSENT)
    whole: Bool = gone == 0
    free = whole & (memory.frames_of(FrameClass.FREE) == memory.region.block_pages)
    return HugeSupply(
        int(whole.sum()), int(free.sum()), int((whole & ~memory.pinned & ~memory.unknown).sum())
    )

"""Page frames of a machine as it runs, counted while they are read: memory of terabytes is never held whole.

Flags are read twice, with what they are judged by in between. A frame is what the younger reading says. It is
"other kernel memory" only where both say so: a page that is just being read from disk, or put on the LRU,
looks like that for a moment. Without any flag in both it is UNKNOWN, as in a dump
(orchestrator.store.raw_flags), unless a memory cgroup is charged with it: then it is kernel memory in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from orchestrator.model.frame_class import MOVABLE, N_FRAME_CLASSES, UNMOVABLE, FrameClass
from orchestrator.model.frames import (
    KPF_ANON,
    KPF_HUGE,
    KPF_LRU,
    KPF_PGTABLE,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_UNEVICTABLE,
    classify_flags,
    flag_set,
)
from orchestrator.model.memory_blocks import MemoryBlock, MemoryBlocks
from orchestrator.model.snapshot import I32, I64, U8, U64, Bool
from orchestrator.units import ENTRIES_PER_TABLE

CELL_PAGES: Final = ENTRIES_PER_TABLE  # frames are counted by aligned 2 MiB, as the kernel isolates them
NO_CGROUP: Final = 0
_PIECE_FRAMES: Final = 1 << 20  # no folio crosses a multiple of it: the largest is 1 GiB
# A kernel has at most 65,535 memory cgroups (MEM_CGROUP_ID_MAX); another machine may claim more.
_MOST_CGROUPS: Final = 1 << 16

_UNMOVABLE: Final = np.isin(np.arange(N_FRAME_CLASSES), UNMOVABLE)
_OWNED: Final = np.isin(np.arange(N_FRAME_CLASSES), [*UNMOVABLE, *MOVABLE])


@dataclass(frozen=True)
class Piece:
    """What was read of the frames from `first` on, arrays of one length.

    `flags` and `again` are kpageflags before and after the others; `cgroups` are inodes of memory cgroups,
    0 for none, or None where the kernel does not tell.
    """

    first: int
    flags: U64
    mapped: U64
    cgroups: U64 | None
    again: U64


@dataclass(frozen=True)
class Pins:
    """Unmovable frames by cell, memory cgroup and class: one row for each combination that there is."""

    cell: I64
    cgroup: I64  # index into `inodes`
    frames: I64


@dataclass(frozen=True)
class LiveMemory:
    """What was counted. A cell is an aligned 2 MiB; cells follow each other block by block.

    `counts` is frames by cell and FrameClass, `owners` frames in use by memory cgroup and FrameClass: row i
    is that of inode `inodes[i]`, the first that of none. `seen` counts frames as /proc/meminfo would. Of
    `frames` that were read, `changed` differed in class between two readings.
    """

    blocks: MemoryBlocks
    counts: I32
    owners: I64
    inodes: tuple[int, ...]
    pins: Pins
    seen: Mapping[str, int]
    frames: int
    changed: int


def pieces(blocks: Sequence[MemoryBlock]) -> Iterator[tuple[int, int]]:
    """(first frame, frames) of what to read: all of the online ones, in bounded pieces."""
    first = end = 0
    for block in [*(one for one in blocks if one.online), None]:
        if block is not None and block.first == end and end > first:
            end += block.frames
            continue
        while first < end:
            cut = min(end, (first // _PIECE_FRAMES + 1) * _PIECE_FRAMES)
            yield first, cut - first
            first = cut
        if block is not None:
            first, end = block.first, block.first + block.frames


@dataclass
class LiveTally:
    """Takes pieces one by one. `ram` are ranges of frames outside of which is no memory; none: not known."""

    blocks: MemoryBlocks
    ram: Sequence[tuple[int, int]]
    _number: dict[int, int] = field(default_factory=lambda: {NO_CGROUP: 0})
    _seen: dict[str, int] = field(default_factory=dict)
    _pins: list[Pins] = field(default_factory=list)
    _frames: int = 0
    _changed: int = 0

    def __post_init__(self) -> None:
        self._starts = np.array([one.first for one in self.blocks.blocks], dtype=np.int64)
        self._cells = self.blocks.blocks[0].frames // CELL_PAGES if self.blocks.blocks else 1
        self._counts = np.zeros((len(self._starts) * self._cells, N_FRAME_CLASSES), dtype=np.int32)
        self._counts[:, FrameClass.ABSENT] = CELL_PAGES
        self._owners = np.zeros((1, N_FRAME_CLASSES), dtype=np.int64)

    def add(self, piece: Piece) -> None:
        """Count one piece: whole cells of blocks that follow each other."""
        classes, changed = _classes(piece)
        classes[~self._is_ram(piece.first, len(classes))] = FrameClass.ABSENT
        self._frames += len(classes)
        self._changed += changed
        at = int(np.searchsorted(self._starts, piece.first, side="right")) - 1
        cell = at * self._cells + (piece.first - int(self._starts[at])) // CELL_PAGES
        within = np.arange(len(classes), dtype=np.int64) // CELL_PAGES
        cells = len(classes) // CELL_PAGES
        counted = np.bincount(within * N_FRAME_CLASSES + classes, minlength=cells * N_FRAME_CLASSES)
        self._counts[cell : cell + cells] = counted.reshape(cells, N_FRAME_CLASSES)
        self._own(piece, classes, within + cell)
        self._see(piece, classes)

    def done(self) -> LiveMemory:
        """All that was counted."""
        pins = Pins(
            *(
                np.concatenate([getattr(one, name) for one in self._pins] or [np.empty(0, dtype=np.int64)])
                for name in ("cell", "cgroup", "frames")
            )
        )
        return LiveMemory(
            self.blocks,
            self._counts,
            self._owners,
            tuple(self._number),
            pins,
            self._seen,
            self._frames,
            self._changed,
        )

    def _is_ram(self, first: int, frames: int) -> Bool:
        if not self.ram:
            return np.ones(frames, dtype=np.bool_)
        inside = np.zeros(frames, dtype=np.bool_)
        for begin, end in self.ram:
            inside[max(0, begin - first) : max(0, end - first)] = True
        return inside

    def _own(self, piece: Piece, classes: U8, cell: I64) -> None:
        if piece.cgroups is None:
            owner = np.zeros(len(classes), dtype=np.int64)
        else:
            owner = self._numbers(piece.cgroups)
        cgroups = len(self._number)
        held = np.flatnonzero(_OWNED[classes])
        counted = np.bincount(
            owner[held] * N_FRAME_CLASSES + classes[held], minlength=cgroups * N_FRAME_CLASSES
        )
        owners = counted.reshape(cgroups, N_FRAME_CLASSES)
        owners[: len(self._owners)] += self._owners
        self._owners = owners
        stuck = held[_UNMOVABLE[classes[held]]]
        rows, frames = np.unique(cell[stuck] * cgroups + owner[stuck], return_counts=True)
        self._pins.append(Pins(rows // cgroups, rows % cgroups, frames.astype(np.int64)))

    def _numbers(self, cgroups: U64) -> I64:
        """The row of each frame's cgroup. Frames side by side mostly have the same: so runs are looked up."""
        starts = np.concatenate(([0], np.flatnonzero(cgroups[1:] != cgroups[:-1]) + 1))
        inodes, which = np.unique(cgroups[starts], return_inverse=True)
        rows = np.array([self._row(int(inode)) for inode in inodes], dtype=np.int64)
        return np.repeat(rows[which], np.diff(np.append(starts, len(cgroups))))

    def _row(self, inode: int) -> int:
        if inode not in self._number and len(self._number) >= _MOST_CGROUPS:
            return 0
        return self._number.setdefault(inode, len(self._number))

    def _see(self, piece: Piece, classes: U8) -> None:
        flags = piece.again
        anonymous, user = flag_set(flags, KPF_ANON), np.isin(classes, MOVABLE)
        mapped = piece.mapped != 0
        for name, found in {
            "anonymous": anonymous & mapped & user,
            "file": ~anonymous & user & ~flag_set(flags, KPF_HUGE) & flag_set(flags, KPF_LRU),
            "shmem": flag_set(flags, KPF_SWAPBACKED) & ~anonymous & user,
            "mapped": ~anonymous & mapped & user & ~flag_set(flags, KPF_HUGE),
            "slab": flag_set(flags, KPF_SLAB),
            "page_table": flag_set(flags, KPF_PGTABLE),
            "unevictable": flag_set(flags, KPF_UNEVICTABLE),
            "hugetlb": classes == FrameClass.HUGETLB,
        }.items():
            self._seen[name] = self._seen.get(name, 0) + int(np.count_nonzero(found))


def _classes(piece: Piece) -> tuple[U8, int]:
    """A FrameClass for each frame, and how many differed between the two readings."""
    older, younger = classify_flags(piece.flags), classify_flags(piece.again)
    classes = np.where(younger == FrameClass.KERNEL, older, younger)
    silent = (piece.flags == 0) & (piece.again == 0)
    if piece.cgroups is not None:
        silent &= piece.cgroups == NO_CGROUP
    classes[silent] = FrameClass.UNKNOWN
    return classes, int(np.count_nonzero(older != younger))

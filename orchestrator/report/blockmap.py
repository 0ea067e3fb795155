"""The memory map: what holds each 2 MiB of a resizable region, drawn as plain SVG.

One path per kind of block, not one element per block, so that a region of many GiB stays small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from orchestrator.model.blocks import Holder, map_blocks
from orchestrator.model.frames import classify_frames
from orchestrator.model.snapshot import U8, Bool, Region, Snapshot
from orchestrator.report.text import clean, count, size
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

_SEPARATE_CELLS: Final = 6000  # above, neighbours of a kind are drawn as one
_ASPECT: Final = 4  # pictures are about this many times wider than high
_CELL: Final = 0.86


@dataclass(frozen=True)
class Kind:
    """What a block can be, in the order of the legend. `css` names its colour."""

    css: str
    label: str


KINDS: Final[dict[Holder, Kind]] = {
    Holder.PAGE_TABLE_ONLY: Kind("b-tables", "page tables, nothing else that cannot move"),
    Holder.PAGE_TABLE: Kind("b-tables-more", "page tables and other kernel memory"),
    Holder.SLAB: Kind("b-slab", "slab, no page tables"),
    Holder.OTHER: Kind("b-kernel", "other memory that cannot move"),
    Holder.MOVABLE: Kind("b-movable", "only movable memory"),
    Holder.FREE: Kind("b-free", "free"),
    Holder.UNPLUGGED: Kind("b-out", "unplugged, or all of it in the balloon"),
}


@dataclass(frozen=True)
class Shape:
    """All blocks of one kind in a picture."""

    kind: Kind
    path: str
    blocks: int


@dataclass(frozen=True)
class Picture:
    """One region at one snapshot."""

    label: str
    region: str
    columns: int
    rows: int
    shapes: tuple[Shape, ...]
    caption: str
    alt: str


def pictures(snapshot: Snapshot) -> list[Picture]:
    """One picture for each resizable region of a snapshot."""
    frames = classify_frames(snapshot)
    return [
        _picture(snapshot.label, region, map_blocks(snapshot, in_cells(region), frames).holder)
        for region in snapshot.regions
    ]


def in_cells(region: Region) -> Region:
    """The region as if its device resized by 2 MiB, which is what a cell of the map stands for."""
    return replace(region, block_pages=ENTRIES_PER_TABLE)


def _picture(label: str, region: Region, holders: U8) -> Picture:
    columns = _columns(len(holders))
    counts = np.bincount(holders, minlength=len(Holder)).tolist()
    shapes = tuple(
        Shape(kind, _path(holders == holder, columns), counts[holder])
        for holder, kind in KINDS.items()
        if counts[holder]
    )
    shown, where = clean(label, 40), clean(region.name, 40)
    return Picture(
        label=shown,
        region=region_words(region),
        columns=columns,
        rows=math.ceil(len(holders) / columns),
        shapes=shapes,
        caption=_caption(counts),
        alt=f"Memory map of {where} at {shown}, {count(len(holders))} blocks of 2 MiB: "
        + ", ".join(f"{count(shape.blocks)} {shape.kind.label}" for shape in shapes),
    )


def _caption(counts: Sequence[int]) -> str:
    parts = (
        (counts[Holder.PAGE_TABLE_ONLY] + counts[Holder.PAGE_TABLE], "with page tables"),
        (counts[Holder.SLAB] + counts[Holder.OTHER], "other unmovable"),
        (counts[Holder.MOVABLE] + counts[Holder.FREE], "movable or free"),
        (counts[Holder.UNPLUGGED], "unplugged"),
    )
    return ", ".join(f"{count(number)} {what}" for number, what in parts if number)


def _columns(blocks: int) -> int:
    """A multiple of 16 that makes the picture about _ASPECT times wider than high."""
    wanted = math.sqrt(max(blocks, 1) * _ASPECT)
    return max(16, min(16 * math.ceil(wanted / 16), 16 * math.ceil(blocks / 16)))


def _path(chosen: Bool, columns: int) -> str:
    indices = np.flatnonzero(chosen)
    if len(chosen) <= _SEPARATE_CELLS:
        cell = f"h{_CELL}v{_CELL}h-{_CELL}z"
        return "".join(f"M{index % columns} {index // columns}{cell}" for index in indices.tolist())
    # Runs of neighbours, broken where a row ends.
    breaks = np.flatnonzero((np.diff(indices) != 1) | (indices[1:] % columns == 0)) + 1
    runs = np.split(indices, breaks)
    return "".join(f"M{run[0] % columns} {run[0] // columns}h{len(run)}v1h-{len(run)}z" for run in runs)


def region_words(region: Region) -> str:
    """Name and size of a region."""
    return f"{clean(region.name, 40)} ({size(region.pages * PAGE_BYTES)})"

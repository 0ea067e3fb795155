"""The memory map: what pins each 2 MiB of a resizable region, drawn as plain SVG.

One path per kind of block, not one element per block, so that a region of many GiB stays small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np

from orchestrator.analysis.arms import TrialView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean, count, size
from orchestrator.errors import BadInputError
from orchestrator.model.blocks import BlockMap, map_blocks
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.frames import classify_frames
from orchestrator.model.snapshot import Bool, Region, Snapshot
from orchestrator.records.events import SnapshotTaken, of_kind
from orchestrator.report.section import SECTIONS, Section, colour
from orchestrator.store.snapshot_file import read_snapshot
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

_SEPARATE_CELLS: Final = 6000  # above, neighbours of a kind are drawn as one
_ASPECT: Final = 4  # pictures are about this many times wider than high
_CELL: Final = 0.86
_MOST_MAPS: Final = 24  # pictures; the rest of the snapshots is named, not drawn


@dataclass(frozen=True)
class Kind:
    """What a block can be, in the order of the legend: attributed to one of `classes`. `css` is its colour.

    `sole_blocker`: only blocks of which that class is the sole blocker, or only the others.
    """

    css: str
    label: str
    classes: tuple[FrameClass, ...]
    sole_blocker: bool | None = None


KINDS: Final = (
    Kind("b-tables", "page tables as sole blocker", (FrameClass.PAGE_TABLE,), sole_blocker=True),
    Kind(
        "b-tables-more", "page tables and other kernel memory", (FrameClass.PAGE_TABLE,), sole_blocker=False
    ),
    Kind("b-slab", "slab, no page tables", (FrameClass.SLAB,)),
    Kind("b-stack", "kernel stacks, vmalloc", (FrameClass.KERNEL_STACK, FrameClass.VMALLOC)),
    Kind("b-memmap", "memmap", (FrameClass.MEMMAP,)),
    Kind("b-network", "network buffers", (FrameClass.NETWORK,)),
    Kind("b-pinned", "DMA-pinned memory", (FrameClass.PINNED,)),
    Kind(
        "b-kernel",
        "other unmovable memory",
        (FrameClass.KERNEL, FrameClass.RESERVED, FrameClass.ZERO_PAGE, FrameClass.HWPOISON),
    ),
    Kind("b-mlocked", "mlocked, movable", (FrameClass.MLOCKED,)),
    Kind("b-shmem", "tmpfs, movable", (FrameClass.SHMEM,)),
    Kind(
        "b-movable",
        "other movable memory",
        (FrameClass.ANONYMOUS, FrameClass.PAGE_CACHE, FrameClass.HUGETLB),
    ),
    Kind("b-free", "free", (FrameClass.FREE, FrameClass.CPU_LIST)),
    Kind("b-out", "unplugged or in the balloon", (FrameClass.ABSENT, FrameClass.OFFLINE)),
)


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


@dataclass(frozen=True)
class ArmMaps:
    """The pictures of the trial that stands for an arm; `note` names it where there are several."""

    name: str
    colour: int
    note: str
    pictures: tuple[Picture, ...]


@SECTIONS.register("map")
@dataclass(frozen=True)
class BlockMaps(Section):
    """`kinds` are those of the legend; `problems` says which snapshots are not drawn, and why."""

    order: ClassVar = 130
    title: ClassVar = "What pins each block"

    arms: tuple[ArmMaps, ...]
    kinds: tuple[Kind, ...]
    problems: tuple[str, ...]
    region: str

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        arms, problems, left = [], [], _MOST_MAPS
        for arm in analysis.arms:
            drawn: list[Picture] = []
            for label, path in _snapshots(arm.shown):
                try:
                    new = pictures(read_snapshot(path)) if left > 0 else []
                except BadInputError as error:
                    problems.append(clean(f"{label}: {error.brief}", 300))
                    continue
                left -= len(new)
                drawn += new
            if drawn:
                note = clean(arm.shown.summary.trial) if len(arm.trials) > 1 else ""
                arms.append(ArmMaps(clean(arm.name, 60), colour(arm), note, tuple(drawn)))
        if left <= 0:
            problems.append(f"Only the first {_MOST_MAPS} snapshots are drawn.")
        shown = [picture for arm in arms for picture in arm.pictures]
        seen = {shape.kind for picture in shown for shape in picture.shapes}
        regions = dict.fromkeys(picture.region for picture in shown)
        kinds = tuple(kind for kind in KINDS if kind in seen)
        return cls(tuple(arms), kinds, tuple(problems), ", ".join(regions)) if arms else None


def _snapshots(trial: TrialView) -> Iterator[tuple[str, Path]]:
    for event in of_kind(trial.folder.events, SnapshotTaken) if trial.folder else ():
        path = trial.folder.snapshot_path(event) if trial.folder else None
        if path is not None:
            yield event.label, path


def pictures(snapshot: Snapshot) -> list[Picture]:
    """One picture for each resizable region of a snapshot."""
    frames = classify_frames(snapshot)
    return [
        _picture(snapshot.label, region, map_blocks(snapshot, in_cells(region), frames))
        for region in snapshot.regions
    ]


def in_cells(region: Region) -> Region:
    """The region as if its device resized by 2 MiB, which is what a cell of the map stands for."""
    return replace(region, block_pages=ENTRIES_PER_TABLE)


def _picture(label: str, region: Region, block_map: BlockMap) -> Picture:
    columns = _columns(len(block_map.counts))
    masks = [(kind, blocks_of(block_map, kind)) for kind in KINDS]
    shapes = tuple(Shape(kind, _path(mask, columns), int(mask.sum())) for kind, mask in masks if mask.any())
    shown, where = clean(label, 40), clean(region.name, 40)
    return Picture(
        label=shown,
        region=region_words(region),
        columns=columns,
        rows=math.ceil(len(block_map.counts) / columns),
        shapes=shapes,
        caption=_caption(block_map),
        alt=f"Memory map of {where} at {shown}, {count(len(block_map.counts))} blocks of 2 MiB: "
        + ", ".join(f"{count(shape.blocks)} {shape.kind.label}" for shape in shapes),
    )


def blocks_of(block_map: BlockMap, kind: Kind) -> Bool:
    """Which blocks are of a kind; each block is of just one."""
    mask: Bool = np.isin(block_map.attributed_to, kind.classes)
    return mask if kind.sole_blocker is None else mask & (block_map.sole_blocker == kind.sole_blocker)


def _caption(block_map: BlockMap) -> str:
    plugged, pinned, tables = block_map.plugged, block_map.pinned, block_map.page_table
    parts = (
        (plugged & tables, "with page tables"),
        (plugged & pinned & ~tables, "other unmovable"),
        (plugged & ~pinned, "movable or free"),
        (~plugged, "unplugged"),
    )
    return ", ".join(f"{count(int(mask.sum()))} {what}" for mask, what in parts if mask.any())


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

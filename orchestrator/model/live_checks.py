"""Frames that were counted by their flags, beside what the kernel itself counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.model.frame_class import FrameClass
from orchestrator.model.live_memory import CELL_PAGES, LiveMemory
from orchestrator.procfs import Zone
from orchestrator.units import PAGE_BYTES


@dataclass(frozen=True)
class LiveCheck:
    """One sum; bytes. The kernel's is read `before` and `after` the frames."""

    name: str
    source: str
    counted: int
    before: int
    after: int

    @property
    def kernel(self) -> int:
        """Half way between the two."""
        return (self.before + self.after) // 2

    @property
    def difference(self) -> int:
        """Counted less the kernel's."""
        return self.counted - self.kernel


def uninitialised(memory: LiveMemory) -> int:
    """Frames of online memory blocks in which no frame has a flag: memmap that is not initialised yet."""
    cells = memory.blocks.block_bytes // (CELL_PAGES * PAGE_BYTES)
    unknown = memory.counts[:, FrameClass.UNKNOWN].reshape(-1, cells).sum(axis=1)
    whole = unknown == cells * CELL_PAGES
    return int(whole.sum()) * cells * CELL_PAGES


def check_all(
    memory: LiveMemory,
    zones: tuple[Sequence[Zone], Sequence[Zone]],
    meminfo: tuple[Mapping[str, int], Mapping[str, int]],
) -> Iterator[LiveCheck]:
    """Each sum that the kernel has, too; `zones` and `meminfo` before and after."""
    frames = memory.counts.sum(axis=0, dtype=np.int64)
    online = sum(one.frames for one in memory.blocks.blocks if one.online)
    beyond = sum(one.frames for one in memory.blocks.blocks if not one.online)
    present = online - (int(frames[FrameClass.ABSENT]) - beyond)
    gone = frames[[FrameClass.OFFLINE, FrameClass.RESERVED]].sum()
    managed = present - int(gone) - uninitialised(memory)
    of_zones = {"present": present, "managed": managed, "free": int(frames[FrameClass.FREE])}
    for name, counted in of_zones.items():
        if zones[0]:
            was, now = (sum(getattr(zone, name) for zone in some) * PAGE_BYTES for some in zones)
            yield LiveCheck(name, "/proc/zoneinfo", counted * PAGE_BYTES, was, now)
    for names, counter in _OF_MEMINFO.items():
        if all(name in some for some in meminfo for name in names):
            was, now = (sum(some[name] for name in names) for some in meminfo)
            yield LiveCheck(
                " + ".join(names), "/proc/meminfo", memory.seen.get(counter, 0) * PAGE_BYTES, was, now
            )


# Lines of /proc/meminfo, summed, and what of LiveMemory.seen they count. AnonPages and Mapped are of mapped
# pages only (NR_ANON_MAPPED, NR_FILE_MAPPED); Slab has large kmalloc as well, which no flag shows.
_OF_MEMINFO: Mapping[tuple[str, ...], str] = {
    ("AnonPages",): "anonymous",
    ("Cached", "Buffers"): "file",
    ("Mapped",): "mapped",
    ("Shmem",): "shmem",
    ("Unevictable",): "unevictable",
    ("Slab",): "slab",
    ("PageTables",): "page_table",
    ("Hugetlb",): "hugetlb",
}

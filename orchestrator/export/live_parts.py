"""Parts of what `blame live --json` prints, as typed classes (orchestrator.export.live_document)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np

from orchestrator.analysis.text import clean
from orchestrator.export.run_row import Document
from orchestrator.model.blame import ClassCount
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.live_blame import BlockState, CgroupShare, LiveBlame, ZoneShare
from orchestrator.model.live_checks import LiveCheck
from orchestrator.model.snapshot import I32, I64
from orchestrator.units import PAGE_BYTES


class BlockCounts(Document):
    """Blocks by what can be said of them now; each is one of these."""

    block_bytes: int
    """Size of a block."""
    free: int
    """Blocks with nothing but free frames."""
    movable: int
    """Blocks with nothing but free and movable frames."""
    pinned: int
    """Blocks with a frame that cannot be moved."""
    unknown: int
    """Blocks without one that is known, and with frames without a flag."""
    refused: int
    """Blocks without one that the kernel refuses to take offline: they span several zones, or have a hole."""
    offline: int
    """Blocks that are offline, or wholly unplugged or in the balloon."""
    together: int
    """How many of the free and movable ones would fit elsewhere all together, with nothing reclaimed."""

    @classmethod
    def of(cls, blame: LiveBlame) -> Self:
        """Of blocks of one size."""
        return cls(
            block_bytes=blame.region.block_map.region.block_pages * PAGE_BYTES,
            together=blame.together,
            **{state.name.lower(): blame.count(state) for state in BlockState},
        )

    @property
    def lets_go(self) -> int:
        """Those that could be taken now."""
        return self.free + self.movable


class LiveClass(Document):
    """One class of frames."""

    frame_class: str
    """Its name."""
    pins: bool
    """Whether frames of it can pin a block."""
    frames: int
    """How many there are."""
    blocks: int
    """Blocks with at least one."""
    sole_blocker: int
    """Blocks in which nothing else pins, as far as known."""
    freeable: int
    """Pinned blocks that would be free without the class."""

    @classmethod
    def of(cls, count: ClassCount) -> Self:
        """Of one class."""
        return cls(
            frame_class=count.frame_class.name.lower(),
            pins=count.pins,
            frames=count.frames,
            blocks=count.blocks,
            sole_blocker=count.sole_blocker,
            freeable=count.freeable,
        )


class LiveZone(Document):
    """One zone."""

    node: int | None
    """Its memory node; null for blocks that are in no zone now."""
    zone: str
    """Its name, as in /proc/zoneinfo."""
    free: int
    """Blocks by state, as in `blocks`."""
    movable: int
    pinned: int
    unknown: int
    refused: int
    offline: int
    free_bytes: int
    """Free memory by flags."""
    kernel_free_bytes: int | None
    """Free memory by /proc/zoneinfo, after the frames were read."""
    unmovable_bytes: int
    """Memory that cannot be moved."""

    @classmethod
    def of(cls, share: ZoneShare) -> Self:
        """Of the blocks of a zone."""
        zone = share.zone
        return cls(
            node=zone.node if zone else None,
            zone=zone.name if zone else "",
            free_bytes=int(share.frames[FrameClass.FREE]) * PAGE_BYTES,
            kernel_free_bytes=zone.free * PAGE_BYTES if zone else None,
            unmovable_bytes=share.unmovable * PAGE_BYTES,
            **{state.name.lower(): share.blocks(state) for state in BlockState},
        )


class LiveCgroup(Document):
    """What one memory cgroup is charged with."""

    inode: int
    """Inode of its folder; `0` for frames that no cgroup is charged with."""
    path: str
    """Its path in the hierarchy; empty where it is not below what is mounted here, or has ended."""
    blocks: int
    """Blocks with an unmovable frame of it."""
    sole_owner: int
    """Blocks in which all unmovable frames are of it."""
    unmovable_bytes: int
    """Its memory that cannot be moved."""
    movable_bytes: int
    """Its memory that would have to be moved."""
    frames: Mapping[str, int]
    """Its frames by class."""

    @classmethod
    def of(cls, share: CgroupShare, paths: Mapping[int, str]) -> Self:
        """Of the share of one."""
        return cls(
            inode=share.inode,
            path=clean(paths.get(share.inode, ""), 200),
            blocks=share.blocks,
            sole_owner=share.sole_owner,
            unmovable_bytes=share.unmovable * PAGE_BYTES,
            movable_bytes=share.movable * PAGE_BYTES,
            frames=_by_class(share.frames),
        )


class LivePolicy(Document):
    """Under which online policy memory would have stayed movable."""

    settings: Mapping[str, str]
    """The kernel's own: `auto_online_blocks`, and the parameters of memory_hotplug."""
    kernel_zone_pinned: int
    """Pinned blocks that are not in ZONE_MOVABLE."""
    unmovable_bytes: int
    """Memory that cannot be moved, in all."""
    least_pinned: int
    """*Modelled*: the fewest blocks that it would fit into."""
    auto_movable_bytes: int | None
    """*Modelled*: the most that `auto-movable` puts into ZONE_MOVABLE at its `auto_movable_ratio`; null where
    there is no such setting."""

    @classmethod
    def of(cls, blame: LiveBlame) -> Self:
        """Of blocks of one size."""
        settings = blame.memory.blocks.policy
        ratio = settings.get("auto_movable_ratio", "")
        online = sum(one.frames for one in blame.memory.blocks.blocks if one.online) * PAGE_BYTES
        at_most = online * int(ratio) // (100 + int(ratio)) if ratio.isdecimal() else None
        return cls(
            settings={clean(name, 40): clean(value, 40) for name, value in settings.items()},
            kernel_zone_pinned=blame.kernel_zone_pinned,
            unmovable_bytes=blame.unmovable_frames * PAGE_BYTES,
            least_pinned=blame.least_pinned,
            auto_movable_bytes=at_most,
        )


class LiveSum(Document):
    """A sum by flags beside the kernel's own."""

    name: str
    """Lines of /proc/meminfo, or the column of /proc/zoneinfo."""
    source: str
    """Which of the two."""
    counted_bytes: int
    """By flags."""
    before_bytes: int
    """By the kernel, before the frames were read."""
    after_bytes: int
    """By the kernel, after that."""
    difference_bytes: int
    """Counted less what is half way between these."""

    @classmethod
    def of(cls, check: LiveCheck) -> Self:
        """Of one check."""
        return cls(
            name=check.name,
            source=check.source,
            counted_bytes=check.counted,
            before_bytes=check.before,
            after_bytes=check.after,
            difference_bytes=check.difference,
        )


class LiveBlock(Document):
    """One block."""

    pfn: int
    """Its first frame."""
    memory_block: int | None
    """N of the memory block memoryN that it is, or lies in."""
    state: str
    """`free`, `movable`, `pinned`, `unknown`, `refused` or `offline`."""
    node: int | None
    """Memory node of its zone."""
    zone: str
    """Zone that it begins in."""
    attributed: str
    """Class that it is attributed to."""
    frames: Mapping[str, int]
    """Its frames by class."""


def each_block(blame: LiveBlame) -> Iterator[LiveBlock]:
    """The blocks one by one."""
    blocks = blame.memory.blocks
    starts = [one.first for one in blocks.blocks]
    inside = np.searchsorted(np.array(starts, dtype=np.int64), blame.first, side="right") - 1
    whole = blame.region.block_map.region.block_pages * PAGE_BYTES <= blocks.block_bytes
    attributed = blame.region.block_map.attributed_to
    for row, first in enumerate(blame.first.tolist()):
        zone = blame.zones[blame.zone[row]] if blame.zone[row] >= 0 else None
        yield LiveBlock(
            pfn=first,
            memory_block=blocks.blocks[inside[row]].number if whole and blocks.real else None,
            state=BlockState(int(blame.state[row])).name.lower(),
            node=zone.node if zone else None,
            zone=zone.name if zone else "",
            attributed=FrameClass(int(attributed[row])).name.lower(),
            frames=_by_class(blame.region.block_map.counts[row]),
        )


def _by_class(counts: I32 | I64) -> dict[str, int]:
    return {one.name.lower(): int(counts[one]) for one in FrameClass if counts[one]}

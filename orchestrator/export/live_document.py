"""What `blame live --json` prints of a machine, as typed classes: docs/json.md is made from them."""

from __future__ import annotations

from typing import Any, Self

from orchestrator.analysis.text import clean
from orchestrator.export.live_parts import (
    BlockCounts,
    LiveBlock,
    LiveCgroup,
    LiveClass,
    LivePolicy,
    LiveSum,
    LiveZone,
    each_block,
)
from orchestrator.export.run_row import Document
from orchestrator.host.live_memory import LiveReading
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.kernel_free import unreserved
from orchestrator.model.live_blame import LiveBlame
from orchestrator.model.live_checks import check_all, uninitialised
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES


class LiveDocument(Document):
    """A machine's memory as `blame live --json` prints it. Sizes are bytes, times seconds."""

    host: str
    """The machine."""
    kernel: str
    """Its `uname -r`."""
    frames: int
    """Frames that were read."""
    frames_changed: int
    """Frames whose class differed between two readings, one right after the other."""
    seconds: float
    """How long it took to read them."""
    cpu_seconds: float
    """CPU time of this process for that, without a reader elsewhere."""
    memory_block_bytes: int
    """What Linux takes offline as a whole."""
    has_memory_blocks: bool
    """Whether it can take memory offline at all (CONFIG_MEMORY_HOTPLUG)."""
    blocks: BlockCounts
    """Blocks of the size that was asked for, else memory blocks."""
    blocks_2mib: BlockCounts
    """The same by blocks of 2 MiB."""
    unknown_frames: int
    """Frames without a flag: kernel memory, free on a PCP list, or not initialised."""
    uninitialised_frames: int
    """Of these, those of memory blocks in which no frame has a flag."""
    pcp_frames: int
    """Frames on PCP lists by /proc/zoneinfo, half way between a reading before and one after: at most so many
    of those without a flag are free."""
    dma_pinned_pages: int | None
    """Pages that are DMA-pinned by /proc/vmstat; no flag says which. Null where it does not say."""
    undecided: int
    """Blocks that one class pins and that also have frames without a flag: whether they would be free without
    that class is unknown, so that it is not their sole blocker."""
    frees_most: str
    """Class without which most blocks would be free; empty where no class frees any by itself."""
    classes: tuple[LiveClass, ...]
    """Frames by class, those that pin first."""
    zones: tuple[LiveZone, ...]
    """Blocks by zone."""
    cgroups: tuple[LiveCgroup, ...]
    """Whose memory it is, most blocks first."""
    no_cgroups: str
    """Why no cgroup is named; empty where cgroups are known."""
    policy: LivePolicy
    """What the online policy has to do with it."""
    checks: tuple[LiveSum, ...]
    """Sums by flags beside the kernel's."""
    each_block: tuple[LiveBlock, ...]
    """The blocks one by one, lowest address first."""

    @classmethod
    def of(
        cls, host: str, reading: LiveReading, block_bytes: int | None, seconds: float, cpu_seconds: float
    ) -> Self:
        """Of a reading, by blocks of `block_bytes`, or memory blocks."""
        memory, zones = reading.memory, reading.after.zones
        room = unreserved(zones)
        pages = (block_bytes or memory.blocks.block_bytes) // PAGE_BYTES
        blame = LiveBlame.of(memory, zones, room, pages)
        fine = LiveBlame.of(memory, zones, room, ENTRIES_PER_TABLE)
        best = blame.region.best_class
        sums = check_all(
            memory, (reading.before.zones, zones), (reading.before.meminfo, reading.after.meminfo)
        )
        return cls(
            host=host,
            kernel=clean(reading.kernel, 80),
            frames=memory.frames,
            frames_changed=memory.changed,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            memory_block_bytes=memory.blocks.block_bytes,
            has_memory_blocks=memory.blocks.real,
            blocks=BlockCounts.of(blame),
            blocks_2mib=BlockCounts.of(fine),
            unknown_frames=int(memory.counts[:, FrameClass.UNKNOWN].sum()),
            uninitialised_frames=uninitialised(memory),
            pcp_frames=sum(zone.on_lists for zone in (*reading.before.zones, *zones)) // 2,
            dma_pinned_pages=reading.dma_pins,
            undecided=blame.region.undecided,
            frees_most=best.frame_class.name.lower() if best else "",
            classes=tuple(LiveClass.of(one) for one in blame.region.classes),
            zones=tuple(LiveZone.of(one) for one in blame.zone_shares),
            cgroups=tuple(LiveCgroup.of(one, reading.cgroups) for one in blame.cgroup_shares),
            no_cgroups=reading.no_cgroups,
            policy=LivePolicy.of(blame),
            checks=tuple(LiveSum.of(one) for one in sums),
            each_block=tuple(each_block(blame)),
        )

    def as_json(self) -> dict[str, Any]:
        """As plain dicts, lists, texts and numbers."""
        return self.model_dump(mode="json")

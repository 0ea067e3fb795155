"""Guests made of thin air: snapshots whose truth is known because the test wrote it down."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.model.frames import (
    KPF_ANON,
    KPF_BUDDY,
    KPF_LRU,
    KPF_MMAP,
    KPF_NOPAGE,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_SWAPBACKED,
    KPF_UPTODATE,
    KPF_ZERO_PAGE,
)
from orchestrator.model.snapshot import Region, Snapshot

LINUX_BLOCK_BYTES = 128 << 20
LINUX_BLOCK_FRAMES = LINUX_BLOCK_BYTES // 4096
BLOCK_PAGES = 512

USER_LINK = 0x067  # _PAGE_TABLE: the kernel writes it for its own tables as well
KERNEL_LINK = 0x063  # _KERNPG_TABLE
USER_DATA = 0x067 | 1 << 63  # a written anonymous page
USER_UNACCESSED = 0x005 | 1 << 63
USER_CODE = 0x025
USER_HUGE = 0x0E7 | 1 << 63
USER_ZERO = 0x025 | 1 << 63
DIRECT_MAP = 0x163 | 1 << 63  # PAGE_KERNEL: global, not executable
DIRECT_MAP_PTI = 0x063 | 1 << 63  # the same under PTI, which has no global pages
SWAPPED = 0xFFFFFFFF_0000_0002  # a swap entry: not present, bit 7 clear


def bits(*numbers: int) -> int:
    """The value with these bits set."""
    return sum(1 << number for number in numbers)


ANON = bits(KPF_LRU, KPF_MMAP, KPF_ANON, KPF_UPTODATE, KPF_SWAPBACKED)


def entry(pfn: int, flags: int) -> int:
    """A page-table entry."""
    return pfn << 12 | flags


class Guest:
    """A guest being written down: flags of frames, then tables, then `snapshot()`."""

    def __init__(self, frames: int = LINUX_BLOCK_FRAMES) -> None:
        self.flags = np.zeros(frames, dtype=np.uint64)
        self.tables: dict[int, dict[int, int]] = {}
        self.unread: set[int] = set()
        self._next_frame = 1

    def frame(self, *kpf: int) -> int:
        """A frame of its own with these KPF bits set."""
        pfn = self._next_frame
        self._next_frame += 1
        self.flags[pfn] = bits(*kpf)
        return pfn

    def anon(self) -> int:
        """A frame of user memory."""
        return self.frame(KPF_LRU, KPF_MMAP, KPF_ANON, KPF_UPTODATE, KPF_SWAPBACKED)

    def zero(self) -> int:
        """A frame that reads as the zero page."""
        return self.frame(KPF_ZERO_PAGE, KPF_RESERVED)

    def table(self, entries: Mapping[int, int] | None = None, *, pfn: int | None = None) -> int:
        """A page table with these entries by slot, marked KPF_PGTABLE; its frame."""
        pfn = self.frame(KPF_PGTABLE) if pfn is None else pfn
        self.flags[pfn] = 1 << KPF_PGTABLE
        self.tables[pfn] = dict(entries or {})
        return pfn

    def upper(self, children: Mapping[int, int], link: int = USER_LINK) -> int:
        """A table that points at the tables `children` (frame by slot)."""
        return self.table({slot: entry(child, link) for slot, child in children.items()})

    def chain(self, leaf: int, top: int, slot: int = 0) -> int:
        """Tables above the PTE table `leaf`, one per level up to `top`; the frame of the top one."""
        for _ in range(top - 1):
            leaf = self.upper({slot: leaf})
        return leaf

    def snapshot(self, regions: tuple[Region, ...] = (), online: list[int] | None = None) -> Snapshot:
        """What would be read from it."""
        pfns = sorted(self.tables)
        pairs = [sorted(self.tables[pfn].items()) for pfn in pfns]
        flat = [pair for table in pairs for pair in table]
        blocks = -(-len(self.flags) // LINUX_BLOCK_FRAMES)
        return Snapshot(
            label="synthetic",
            kernel="6.12.0",
            flags=self.flags.copy(),
            table_pfn=np.array(pfns, dtype=np.int64),
            entry_start=np.cumsum([0, *(len(table) for table in pairs)], dtype=np.int64),
            entry_slot=np.array([slot for slot, _ in flat], dtype=np.uint16),
            entry_value=np.array([value for _, value in flat], dtype=np.uint64),
            regions=regions,
            online_block_bytes=LINUX_BLOCK_BYTES,
            online_blocks=np.array(range(blocks) if online is None else online, dtype=np.int64),
            paused=True,
            frames_changed=0,
        )


REGION_START = 1 << 20  # 4 GiB: where QEMU puts device memory of a small guest


def sparse_guest(
    tables: int = 25_600, *, region_gib: int = 2, rng: np.random.Generator | None = None
) -> Snapshot:
    """A guest of 1 GiB plus `region_gib` that touched `tables` x 2 MiB once and gave the pages back.

    Its `tables` PTE tables are all empty and lie two to three frames apart in the region, among free,
    user, page-cache and slab frames; the last quarter of the region is unplugged. Above them are PMD
    tables, 512 at most in each, and a PUD table; as on 6.12 the PGD is not marked as a page table.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    base, pages = 1 << 18, region_gib << 18
    plugged = pages * 3 // 4
    guest = Guest(REGION_START + pages)
    flags = guest.flags
    kinds = np.array(
        [bits(KPF_BUDDY), ANON, ANON | bits(2), bits(KPF_LRU, KPF_UPTODATE, 2, 6), bits(KPF_SLAB), 0],
        dtype=np.uint64,
    )
    runs = rng.geometric(0.08, size=base + plugged)  # frames of a kind come in runs
    drawn = np.repeat(rng.choice(kinds, size=len(runs), p=[0.4, 0.3, 0.1, 0.13, 0.05, 0.02]), runs)
    flags[:base] = drawn[:base]
    flags[:256] = bits(KPF_RESERVED)
    flags[base:REGION_START] = bits(KPF_NOPAGE)
    flags[REGION_START : REGION_START + plugged] = drawn[base : base + plugged]
    flags[REGION_START + plugged :] = bits(KPF_OFFLINE)

    step = max(min(plugged // (tables + 600), 3), 1)
    pfns = REGION_START + np.arange(tables) * step
    flags[pfns] = bits(KPF_PGTABLE)
    for pfn in pfns.tolist():
        guest.tables[pfn] = {}
    guest._next_frame = int(REGION_START + tables * step)
    pmds = [
        guest.upper({slot: int(pfn) for slot, pfn in enumerate(pfns[first : first + 512])})
        for first in range(0, tables, 512)
    ]
    for first in range(0, len(pmds), 512):
        guest.upper(dict(enumerate(pmds[first : first + 512])))
    linux_blocks = [*range(base // LINUX_BLOCK_FRAMES), *range(32, 32 + pages // LINUX_BLOCK_FRAMES)]
    region = Region("vm0", REGION_START, pages, BLOCK_PAGES, plugged * 4096)
    return guest.snapshot((region,), linux_blocks)

"""The state of a guest's page frames and page tables at one instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# Physical addresses end at bit 51 (Intel SDM vol. 3A, 4.1.4: MAXPHYADDR is at most 52).
MAX_FRAMES = 1 << 40
_MOST_BLOCKS = 1 << 21  # of all regions: 4 TiB in blocks of 2 MiB; a count of each class is kept for each
_MOST_BLOCK_PAGES = 1 << 30

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Evidence(IntEnum):
    """What is known of a frame beside its flags; orchestrator.guest.evidence finds it out."""

    NONE = 0
    TABLE = 1  # a page table without KPF_PGTABLE: the kernel's, or above PMD level on kernels before 6.14
    CPU_LIST = 2  # free, waiting on a per-CPU list
    PINNED = 3  # has so many references that the kernel takes it for pinned (folio_maybe_dma_pinned())
    KERNEL_STACK = 4
    VMALLOC = 5  # mapped in vmalloc or module space, and no stack
    MEMMAP = 6  # holds struct pages
    NETWORK = 7  # a network buffer
    SECOND_LEVEL = 8  # a second-level table of KVM, of a guest within this guest
    UNKNOWN = 9  # in a dump of flags only: without any flag, and nothing says whether it is in use


@dataclass(frozen=True)
class Region:
    """A stretch of guest-physical memory that is resized in blocks (a virtio-mem device, a DIMM).

    `start_pfn` is the first guest frame; `pages` and `block_pages` count 4 KiB frames;
    `plugged_bytes` is what QEMU said was plugged (`query-memory-devices`: size) when it was read.
    """

    name: str
    start_pfn: int
    pages: int
    block_pages: int
    plugged_bytes: int

    @property
    def blocks(self) -> int:
        """Number of device blocks, plugged or not."""
        return self.pages // self.block_pages


@dataclass(frozen=True)
class Snapshot:
    """Page-frame flags of the whole guest and the non-zero entries of its page-table pages.

    `flags[i]` is `/proc/kpageflags` of frame `i` (u64, include/uapi/linux/kernel-page-flags.h).
    Page-table pages are those with KPF_PGTABLE and those with Evidence.TABLE; `table_pfn` (n, sorted) are
    the ones whose content was read. Their contents are stored sparsely in CSR form: the non-zero entries
    of table `i` are `entry_slot[k]` (0..511) and `entry_value[k]` (raw u64 as in memory) for
    `entry_start[i] <= k < entry_start[i + 1]`. So an empty table takes no room.

    `evidence[i]` is an Evidence for frame `i`, from the guest's struct pages and kernel page tables; it
    is empty where these were not read, and `notes` say why.

    The memory map (struct pages) of memory that was added later lies in memory itself: frame
    `memmap_pfn[k]` (sorted) holds the struct pages of the `memmap_frames` frames from `memmap_first[k]` on.
    It goes when that memory goes.

    `deposited_pfn` (sorted) are page tables that the kernel keeps for huge pages of anonymous memory, one for
    each, to map them by when they are split; `deposited_below[k]` is the PMD table that points at the huge
    page. No entry points at such a table, and none is in it. `deposits_read` says whether they were looked
    for, and could be found.

    `online_block_bytes` and `online_blocks`: size and indices of Linux memory blocks that exist and
    are online in the guest (`/sys/devices/system/memory/memoryN`), since frames of a removed block
    can read as flags 0 as well as NOPAGE.

    `paused` says whether vCPUs stood still during the reading; `frames_changed` counts frames whose flags
    differed between a reading before and one after the contents were read (0 when paused; -1 when
    it was not looked at).
    """

    label: str
    kernel: str  # uname -r
    flags: U64
    table_pfn: I64
    entry_start: I64
    entry_slot: U16
    entry_value: U64
    regions: tuple[Region, ...]
    online_block_bytes: int
    online_blocks: I64
    paused: bool
    frames_changed: int
    tables_unread: int = 0  # page-table pages whose content could not be read
    notes: dict[str, str] = field(default_factory=dict)  # free text on how it was taken
    evidence: U8 = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    memmap_pfn: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    memmap_first: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    memmap_frames: int = 64
    deposited_pfn: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    deposited_below: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    deposits_read: bool = False

    @property
    def tables(self) -> int:
        """Number of page-table pages whose content was read."""
        return len(self.table_pfn)

    def faults(self) -> list[str]:
        """What is inconsistent in it, in words; empty when the model can work with it.

        The model's array code relies on these: it does not check again.
        """
        return [*self._frame_faults(), *self._table_faults()]

    def _frame_faults(self) -> list[str]:
        block_ok = self.online_block_bytes > 0 and self.online_block_bytes % PAGE_BYTES == 0
        checks = [
            (
                block_ok,
                f"a Linux memory block of {self.online_block_bytes} bytes is no whole number of pages",
            ),
            (_ascending(self.online_blocks), "online memory blocks are not sorted, or repeat"),
            (self.frames_changed >= -1 and self.tables_unread >= 0, "a count is negative"),
            (_ascending(self.memmap_pfn), "frames of the memory map are not sorted, or repeat"),
            (
                len(self.memmap_pfn) == len(self.memmap_first),
                "the memory map is not known for every frame of it",
            ),
            (_ascending(self.deposited_pfn), "deposited page tables are not sorted, or repeat"),
            (
                len(self.deposited_pfn) == len(self.deposited_below),
                "what page tables are deposited for is not known for each of them",
            ),
            (self.deposits_read or not len(self.deposited_pfn), "deposited page tables that were not read"),
            (self.memmap_frames > 0 and not np.any(self.memmap_first < 0), "the memory map makes no sense"),
            (len(self.evidence) in {0, len(self.flags)}, "evidence is not there for every frame"),
            (not np.any(self.evidence > max(Evidence)), "evidence of a kind that this program does not know"),
        ]
        for region in self.regions:
            sizes = 0 < region.block_pages <= _MOST_BLOCK_PAGES and region.pages > 0
            whole = sizes and region.pages % region.block_pages == 0
            # A region may reach past the flags: /proc/kpageflags ends at the highest frame ever added.
            within = region.start_pfn >= 0 and region.start_pfn + region.pages <= MAX_FRAMES
            filled = 0 <= region.plugged_bytes <= region.pages * PAGE_BYTES
            checks += [
                (whole, f"region {region.name!r} is no whole number of blocks"),
                (within, f"region {region.name!r} lies outside of physical memory"),
                (filled, f"region {region.name!r} has more plugged than its size, or less than nothing"),
            ]
        blocks = sum(region.pages // max(region.block_pages, 1) for region in self.regions)
        checks.append(
            (blocks <= _MOST_BLOCKS, f"regions of {blocks} blocks: at most {_MOST_BLOCKS} are counted")
        )
        return [wrong for right, wrong in checks if not right]

    def _table_faults(self) -> list[str]:
        starts, slots = self.entry_start, self.entry_slot
        if len(starts) != self.tables + 1:
            return [f"{self.tables} tables need {self.tables + 1} entry starts, not {len(starts)}"]
        sizes = np.diff(starts)
        if starts[0] != 0 or starts[-1] != len(slots) or np.any(sizes < 0):
            return ["entry starts do not ascend from 0 to the number of entries"]
        if len(slots) != len(self.entry_value):
            return [f"{len(slots)} entry slots for {len(self.entry_value)} entry values"]
        same_table = np.ones(max(len(slots) - 1, 0), dtype=np.bool_)
        boundaries = starts[1:-1]
        same_table[boundaries[(boundaries > 0) & (boundaries < len(slots))] - 1] = False
        in_flags = self.tables == 0 or (self.table_pfn[0] >= 0 and self.table_pfn[-1] < len(self.flags))
        checks = [
            (_ascending(self.table_pfn), "page-table frames are not sorted, or repeat"),
            (in_flags, "a page-table frame lies outside of the frames whose flags were read"),
            (not np.any(slots >= ENTRIES_PER_TABLE), f"an entry's slot is not below {ENTRIES_PER_TABLE}"),
            (not np.any(same_table & (slots[1:] <= slots[:-1])), "slots within a table do not ascend"),
            (bool(np.all(self.entry_value)), "an entry is stored although it is zero"),
        ]
        return [wrong for right, wrong in checks if not right]


def _ascending(values: I64) -> bool:
    return bool(np.all(values[1:] > values[:-1])) and (len(values) == 0 or values[0] >= 0)

"""The state of a guest's page frames and page tables at one instant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

U16 = NDArray[np.uint16]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A stretch of guest-physical memory that is resized in blocks (a virtio-mem device).

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
    Page-table pages are those with KPF_PGTABLE; `table_pfn` (n, sorted) are the ones whose content
    was read. Their contents are stored sparsely in CSR form: the non-zero entries of table `i` are
    `entry_slot[k]` (0..511) and `entry_value[k]` (raw u64 as in memory) for
    `entry_start[i] <= k < entry_start[i + 1]`. So an empty table takes no room.

    `online_block_bytes` and `online_blocks`: size and indices of Linux memory blocks that exist and
    are online in the guest (`/sys/devices/system/memory/memoryN`), since frames of a removed block
    can read as flags 0 as well as NOPAGE.

    `paused` says whether vCPUs stood still during the reading; `moved` counts frames whose flags
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
    moved: int
    tables_unread: int = 0  # page-table pages whose content could not be read
    notes: dict[str, str] = field(default_factory=dict)  # free text on how it was taken

    @property
    def tables(self) -> int:
        """Number of page-table pages whose content was read."""
        return len(self.table_pfn)

"""What every guest page frame is used for, read from /proc/kpageflags.

Read against fs/proc/page.c (`stable_page_flags`) as of 6.12 and of 7.x (linux-mm, after
`snapshot_page()` came in). What differs, and matters here:

* A frame without an online struct page reads KPF_NOPAGE up to 6.12; since `kpage_read()` was shared
  between the three /proc files it reads plain 0. So ABSENT is decided by the list of online Linux
  memory blocks first, by KPF_NOPAGE second. A dump has no such list: there, a frame without any flag is
  UNKNOWN (orchestrator.store.raw_flags).
* Both export the *folio's* flags for the tails of compound pages (LRU, ANON, SLAB, RESERVED ...), and
  set KPF_BUDDY on all pages of a free block, not just its first (`is_free_buddy_page`). But 6.12 reads
  PageOffline and PageTable from the page itself, 7.x from the folio, and kernels before 6.9 the flags
  of the tail: so a tail that tells nothing takes the class of its head.
* KPF_PGTABLE is set by the pagetable constructors: on 6.12 by those for user PTE tables and for all
  PMD and PUD tables; later ones also by those for P4D, PGD and the kernel's PTE tables
  (include/asm-generic/pgalloc.h). Tables of the direct map are never constructed and stay unflagged.

What flags cannot tell, and a snapshot's evidence can (`Evidence`, read from the guest's struct pages and
kernel page tables from outside):

* Pages on the per-CPU free lists are free but carry no flag (not BUDDY). At most a few hundred per CPU
  and zone, and alloc_contig_range() drains them before it gives up.
* Kernel stacks, vmalloc and struct pages have no flag of their own, nor have page tables that were set up
  before the allocator, or on 6.12 P4Ds and PGDs.
* LRU pages under a long-term pin (io_uring, vfio, RDMA) look movable and are not. Pins of huge pages are
  counted elsewhere (folio._pincount) and not seen.

What neither tells on a stock kernel: large kmalloc, pipe buffers, network buffers and what else drivers
take page by page. They are KERNEL, unless a kernel with page_owner says more.
"""

from __future__ import annotations

import numpy as np

from orchestrator.model.frame_class import MOVABLE, FrameClass
from orchestrator.model.snapshot import I64, U8, U64, Bool, Evidence, Snapshot
from orchestrator.units import PAGE_BYTES

# Bit numbers: include/uapi/linux/kernel-page-flags.h; from 32 on include/linux/kernel-page-flags.h.
KPF_LOCKED = 0
KPF_ERROR = 1
KPF_REFERENCED = 2
KPF_UPTODATE = 3
KPF_DIRTY = 4
KPF_LRU = 5
KPF_ACTIVE = 6
KPF_SLAB = 7
KPF_WRITEBACK = 8
KPF_RECLAIM = 9
KPF_BUDDY = 10
KPF_MMAP = 11
KPF_ANON = 12
KPF_SWAPCACHE = 13
KPF_SWAPBACKED = 14
KPF_COMPOUND_HEAD = 15
KPF_COMPOUND_TAIL = 16
KPF_HUGE = 17
KPF_UNEVICTABLE = 18
KPF_HWPOISON = 19
KPF_NOPAGE = 20
KPF_KSM = 21
KPF_THP = 22
KPF_OFFLINE = 23
KPF_ZERO_PAGE = 24
KPF_IDLE = 25
KPF_PGTABLE = 26
KPF_RESERVED = 32
KPF_MLOCKED = 33


# Unevictable and mlocked pages stay movable: unlike compaction, isolate_migratepages_range() isolates
# with ISOLATE_UNEVICTABLE (mm/compaction.c). A page that has just been faulted in waits in a per-CPU LRU
# batch without PG_lru; ANON, SWAPBACKED and UPTODATE tell such pages from the kernel's. MMAP alone does
# not: vm_insert_page() maps driver buffers (perf, io_uring, packet rings), which cannot be migrated.
_MOVABLE_BITS = (
    *(KPF_LRU, KPF_ANON, KPF_SWAPCACHE, KPF_SWAPBACKED, KPF_UNEVICTABLE, KPF_MLOCKED),
    *(KPF_HUGE, KPF_THP, KPF_UPTODATE, KPF_WRITEBACK),
)

# Later rows win. Shared memory is SWAPBACKED as anonymous memory is, but not ANON (folio_is_file_lru()).
# BUDDY beats the rest because PG_reported aliases PG_uptodate on free pages; ZERO_PAGE beats RESERVED
# (the 4 KiB zero page lies in the kernel image) and what is movable (the huge one reads as THP).
_RULES: tuple[tuple[tuple[int, ...], FrameClass], ...] = (
    (_MOVABLE_BITS, FrameClass.PAGE_CACHE),
    ((KPF_SWAPBACKED,), FrameClass.SHMEM),
    ((KPF_ANON,), FrameClass.ANONYMOUS),
    ((KPF_HUGE,), FrameClass.HUGETLB),
    ((KPF_UNEVICTABLE, KPF_MLOCKED), FrameClass.MLOCKED),
    ((KPF_RESERVED,), FrameClass.RESERVED),
    ((KPF_ZERO_PAGE,), FrameClass.ZERO_PAGE),
    ((KPF_SLAB,), FrameClass.SLAB),
    ((KPF_PGTABLE,), FrameClass.PAGE_TABLE),
    ((KPF_BUDDY,), FrameClass.FREE),
    ((KPF_HWPOISON,), FrameClass.HWPOISON),
    ((KPF_OFFLINE,), FrameClass.OFFLINE),
    ((KPF_NOPAGE,), FrameClass.ABSENT),
)

# Evidence is a moment younger than the flags, so it speaks only where they are silent; a pin, where they
# say that the frame could be moved.
_OF_SILENT = {
    Evidence.TABLE: FrameClass.PAGE_TABLE,
    Evidence.CPU_LIST: FrameClass.CPU_LIST,
    Evidence.KERNEL_STACK: FrameClass.KERNEL_STACK,
    Evidence.VMALLOC: FrameClass.VMALLOC,
    Evidence.MEMMAP: FrameClass.MEMMAP,
    Evidence.NETWORK: FrameClass.NETWORK,
    Evidence.SECOND_LEVEL: FrameClass.SECOND_LEVEL,
    Evidence.UNKNOWN: FrameClass.UNKNOWN,
}


def flag_set(flags: U64, *bits: int) -> Bool:
    """Which of `flags` (u64 of /proc/kpageflags, any shape) have at least one of the bits set."""
    mask = np.uint64(sum(1 << bit for bit in bits))
    found: Bool = (flags & mask) != 0
    return found


def classify_frames(snapshot: Snapshot) -> U8:
    """One FrameClass per frame of `snapshot.flags`, shape (frames,)."""
    classes = classify_flags(snapshot.flags)
    if len(snapshot.evidence):
        silent = classes == FrameClass.KERNEL
        for evidence, frame_class in _OF_SILENT.items():
            classes[silent & (snapshot.evidence == evidence)] = frame_class
        movable = np.isin(classes, MOVABLE)
        classes[movable & (snapshot.evidence == Evidence.PINNED)] = FrameClass.PINNED
    classes[~_online(snapshot)] = FrameClass.ABSENT
    return classes


def classify_flags(flags: U64) -> U8:
    """One FrameClass per frame, as far as flags alone tell; shape (frames,)."""
    classes = np.full(len(flags), FrameClass.KERNEL, dtype=np.uint8)
    for bits, frame_class in _RULES:
        classes[flag_set(flags, *bits)] = frame_class
    _inherit_from_heads(classes, flags)
    return classes


def _inherit_from_heads(classes: U8, flags: U64) -> None:
    """Give every compound tail that tells nothing the class of its head (in place)."""
    tails, heads = tails_and_heads(flags, classes == FrameClass.KERNEL)
    classes[tails] = classes[heads]


def tails_and_heads(flags: U64, among: Bool) -> tuple[I64, I64]:
    """Frames of compound tails, of those in the mask `among`, and of the head of each."""
    tail = flag_set(flags, KPF_COMPOUND_TAIL)
    tails = np.flatnonzero(tail & among)
    if not len(tails):
        return tails, tails
    last_non_tail = np.arange(len(flags), dtype=np.int64)
    last_non_tail[tail] = 0
    np.maximum.accumulate(last_non_tail, out=last_non_tail)
    heads = last_non_tail[tails]
    # In a guest that ran on, a head may be gone when its tails are read: those are left out.
    headed = flag_set(flags[heads], KPF_COMPOUND_HEAD)
    return tails[headed], heads[headed]


def _online(snapshot: Snapshot) -> Bool:
    """Which frames lie in a Linux memory block that is online, shape (frames,)."""
    frames = len(snapshot.flags)
    block_frames = snapshot.online_block_bytes // PAGE_BYTES
    online = np.zeros(-(-frames // block_frames), dtype=np.bool_)
    online[snapshot.online_blocks[snapshot.online_blocks < len(online)]] = True
    return np.repeat(online, block_frames)[:frames]

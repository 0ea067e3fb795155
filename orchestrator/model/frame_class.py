"""What a page frame can be used for, and what of it pins a block."""

from __future__ import annotations

from enum import IntEnum


class FrameClass(IntEnum):
    """The use of a frame; every frame has exactly one."""

    ABSENT = 0  # no online struct page: a hole, or a Linux memory block that is removed or offline
    OFFLINE = 1  # PageOffline: unplugged by virtio-mem, or in the balloon (both on 6.12 and 7.x)
    FREE = 2  # in the buddy allocator
    CPU_LIST = 3  # free, on a PCP list
    PAGE_CACHE = 4  # of files on a disk
    ANONYMOUS = 5  # user memory
    SHMEM = 6  # tmpfs and shared memory
    HUGETLB = 7
    MLOCKED = 8  # mlock(), or unevictable for another reason
    PINNED = 9  # DMA-pinned memory
    PAGE_TABLE = 10
    SLAB = 11
    KERNEL_STACK = 12
    VMALLOC = 13  # vmalloc, modules, per-CPU areas
    MEMMAP = 14  # struct pages of memory that was added later
    NETWORK = 15  # network buffers, where they can be distinguished
    KERNEL = 16  # allocated, and nothing says for what
    RESERVED = 17  # kernel image, early boot allocations, firmware
    ZERO_PAGE = 18  # the zero page, the huge zero page
    HWPOISON = 19
    SECOND_LEVEL = 20  # tables by which KVM maps a guest within this guest, where they can be distinguished
    UNKNOWN = 21  # no flag, in a dump: kernel memory, free on a per-CPU list, or not initialised yet


N_FRAME_CLASSES = len(FrameClass)

# What alloc_contig_range() cannot move. HWPOISON: page_is_unmovable() lets it pass for memory offlining
# only. ZERO_PAGE: the huge zero page is allocated without __GFP_MOVABLE. OFFLINE is not here: unplugged
# frames are what is wanted, and balloon pages are migrated (balloon_mops). A block that several of them
# pin is attributed to the first. UNKNOWN is in neither list: it may pin a block, and it may not.
UNMOVABLE = (
    FrameClass.PAGE_TABLE,
    FrameClass.SECOND_LEVEL,
    FrameClass.SLAB,
    FrameClass.KERNEL_STACK,
    FrameClass.VMALLOC,
    FrameClass.MEMMAP,
    FrameClass.NETWORK,
    FrameClass.PINNED,
    FrameClass.KERNEL,
    FrameClass.RESERVED,
    FrameClass.ZERO_PAGE,
    FrameClass.HWPOISON,
)
# In use, and moved if there is room elsewhere.
MOVABLE = (
    FrameClass.MLOCKED,
    FrameClass.SHMEM,
    FrameClass.ANONYMOUS,
    FrameClass.PAGE_CACHE,
    FrameClass.HUGETLB,
)

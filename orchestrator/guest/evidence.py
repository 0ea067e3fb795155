"""What a guest's frames are used for, where their flags are silent: read from outside, no guest CPU spent.

Struct pages tell which frames wait on a per-CPU list and which are pinned; the kernel's page tables, which
are stacks, vmalloc or struct pages, and which tables have no flag of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from orchestrator.guest.kernel_tables import NotFoundError, ReadFrames, VmcoreInfo, walk
from orchestrator.model.entries import ACCESSED, DIRTY, PFN_MASK, PFN_SHIFT, PRESENT, PSE, USER
from orchestrator.model.frame_class import MOVABLE, FrameClass
from orchestrator.model.frames import (
    KPF_ANON,
    KPF_HUGE,
    KPF_ZERO_PAGE,
    classify_flags,
    flag_set,
    tails_and_heads,
)
from orchestrator.model.snapshot import I64, U8, U32, U64, Bool, Evidence
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# GUP_PIN_COUNTING_BIAS, include/linux/mm.h: each pin of a small folio counts this many references.
_PIN_REFERENCES = 1024
_STACK_PAGES = 4  # THREAD_SIZE, arch/x86/include/asm/page_64_types.h
_NO_TYPE = 0xFFFF_FFFF  # _mapcount of a page that is neither mapped nor of a type
_COMPOUND_TAIL = 1  # compound_head (compound_info since 7.0): shares its word with lru.next
_POISON_BITS = 0xDEAD << 48  # CONFIG_ILLEGAL_POINTER_VALUE: LIST_POISON1 and PP_SIGNATURE begin with it
# page_pool's mark, where lru.next is. In it stand, since 6.16, an index of 32 bits from bit 7 on, and what
# bits 0 and 1 say of the page (PP_DMA_INDEX_MASK and PP_MAGIC_MASK, include/linux/mm.h; ee62ce7a1d90).
# No list poison is taken for it: LIST_POISON1 and 2 have bit 6 clear.
_PP_SIGNATURE = _POISON_BITS | 0x40  # include/linux/poison.h
_PP_INDEX = (1 << 32) - 1 << 7
_PP_MASK = ~(_PP_INDEX | 3) & (1 << 64) - 1
# Orders of chunks that per-CPU lists hold beside single pages: up to PAGE_ALLOC_COSTLY_ORDER, and huge pages.
_CPU_LIST_ORDERS = (9, 3, 2, 1)
_KERNEL_HALF = slice(ENTRIES_PER_TABLE // 2, None)
_USER_HALF = slice(0, ENTRIES_PER_TABLE // 2)
# Frames whose content is searched for process roots. 1 GiB of plain kernel memory: more has no such.
_MOST_SEARCHED = 1 << 18


@dataclass(frozen=True)
class RawEvidence:
    """What has to be read while the vCPUs stand still.

    `tables` (t,) are frames of page tables without a flag, sorted. `memmap` (m,), sorted, are frames of the
    memory map, and `describes` the first frame that each describes; `struct_pages` (n, 1024) u32 is what
    could be read of them, and describes frames from `first` (n,) on.
    """

    vmcoreinfo: VmcoreInfo
    root: U64
    vmalloc: tuple[I64, I64]  # virtual page numbers and frames
    tables: I64
    memmap: I64
    describes: I64
    first: I64
    struct_pages: U32


def read_evidence(read: ReadFrames, layout: VmcoreInfo, flags: U64) -> RawEvidence:
    """Read what evidence is made from. Raises NotFoundError when the kernel's tables make no sense."""
    mappings = walk(read, layout)
    per_frame = PAGE_BYTES // layout.page_bytes
    begin = layout.page_number(layout.vmemmap)
    vpn, pfn = mappings.between(begin, begin - -len(flags) // per_frame)
    order = np.argsort(pfn, kind="stable")
    memmap, describes = pfn[order], (vpn[order] - begin) * per_frame
    if len(memmap) and np.any(memmap[1:] == memmap[:-1]):
        raise NotFoundError("two parts of the memory map lie in the same frame")
    found, contents = read(memmap)
    raw = RawEvidence(
        layout,
        mappings.root,
        mappings.vmalloc(layout),
        mappings.tables,
        memmap,
        describes,
        first=describes[np.isin(memmap, found, assume_unique=True)],
        struct_pages=contents.view(np.uint32),
    )
    return replace(raw, tables=np.union1d(mappings.tables, _process_roots(read, raw, flags)))


@dataclass(frozen=True)
class MemoryMap:
    """Frames `pfn` (sorted) that hold struct pages, each of `frames` frames from `first` on."""

    pfn: I64
    first: I64
    frames: int


def memory_map(raw: RawEvidence | None, frames: int) -> MemoryMap:
    """Where the memory map lies that is within the first `frames` frames; empty without evidence."""
    if raw is None:
        return MemoryMap(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), PAGE_BYTES // 64)
    inside = raw.memmap < frames
    return MemoryMap(raw.memmap[inside], raw.describes[inside], PAGE_BYTES // raw.vmcoreinfo.page_bytes)


def _process_roots(read: ReadFrames, raw: RawEvidence, flags: U64) -> I64:
    """PGDs without a flag, and with five levels the P4Ds below them: what kernels before 6.14 do not mark.

    Each PGD has the kernel's half of the topmost table copied into it (pgd_ctor(),
    arch/x86/mm/pgtable.c), which nothing else has.
    """
    pages = _StructPages.of(raw, len(flags))
    silent = classify_flags(flags) == FrameClass.KERNEL
    candidates = np.flatnonzero(silent & pages.known & (pages.refcount == 1) & (pages.mapcount == _NO_TYPE))
    if len(candidates) > _MOST_SEARCHED:
        return np.empty(0, dtype=np.int64)
    found, contents = read(candidates.astype(np.int64))
    kernel = raw.root[_KERNEL_HALF]
    used = kernel != 0
    differs = (contents[:, _KERNEL_HALF] ^ kernel) & ~np.uint64(ACCESSED | DIRTY)
    is_root = ~(differs[:, used] != 0).any(axis=1)
    roots: I64 = found[is_root]
    if raw.vmcoreinfo.levels < 5:
        return roots
    links = contents[is_root][:, _USER_HALF]
    links = links[(links & np.uint64(PRESENT)) != 0]
    below = ((links >> np.uint64(PFN_SHIFT)) & np.uint64(PFN_MASK)).astype(np.int64)
    below = below[below < len(flags)]
    both: I64 = np.union1d(roots, below[silent[below]])
    return both


def find_evidence(raw: RawEvidence, flags: U64) -> U8:
    """One Evidence per frame of `flags`, shape (frames,)."""
    frames = len(flags)
    evidence = np.zeros(frames, dtype=np.uint8)

    def put(pfn: I64, what: Evidence) -> None:
        evidence[pfn[(pfn >= 0) & (pfn < frames)]] = what

    pages = _StructPages.of(raw, frames)
    classes = classify_flags(flags)
    silent = classes == FrameClass.KERNEL
    put(np.flatnonzero(np.isin(classes, MOVABLE) & pages.pinned), Evidence.PINNED)
    pool = silent & pages.in_page_pool
    tails, heads = tails_and_heads(flags, silent)
    put(np.concatenate([np.flatnonzero(pool), tails[pool[heads]]]), Evidence.NETWORK)
    put(np.flatnonzero(pages.on_cpu_list(silent)), Evidence.CPU_LIST)
    vpn, pfn = raw.vmalloc
    put(pfn, Evidence.VMALLOC)
    put(pfn[_stacks(vpn)], Evidence.KERNEL_STACK)
    put(raw.memmap, Evidence.MEMMAP)
    put(raw.tables, Evidence.TABLE)
    return evidence


@dataclass(frozen=True)
class Deposits:
    """Page tables `pfn` (sorted) that are kept for huge pages, each with the PMD table `below` which it is.

    `huge_mappings` counts those of anonymous memory, each of which has one: from the contents of tables,
    which know nothing of deposits. `read` is False without struct pages, and where there are mappings and
    none of their tables was found: a kernel for fewer than four processors keeps them elsewhere
    (USE_SPLIT_PMD_PTLOCKS).
    """

    pfn: I64
    below: I64
    huge_mappings: int
    read: bool


def find_deposits(raw: RawEvidence | None, flags: U64, tables: I64, entries: U64) -> Deposits:
    """Deposited ones among the page tables `tables` (sorted frames), with all non-zero `entries` of these.

    pgtable_trans_huge_deposit() (mm/pgtable-generic.c): the struct page of a PMD table points at that of the
    last one deposited (pmd_huge_pte, behind the padding that is lru.next elsewhere: struct ptdesc,
    include/linux/mm_types.h), and from there they are a ring by their lru.
    """
    mappings = _huge_anonymous(flags, entries)
    if raw is None:
        nothing = np.empty(0, dtype=np.int64)
        return Deposits(nothing, nothing, mappings, read=False)
    pages = _StructPages.of(raw, len(flags))
    is_table = np.zeros(len(flags), dtype=np.bool_)
    is_table[tables] = True
    below = np.full(len(flags), -1, dtype=np.int64)
    owner = tables
    at = pages.index(pages.lru_prev[tables] + np.uint64(raw.vmcoreinfo.lru))
    while len(at):
        fresh = (at >= 0) & is_table[at]
        fresh[fresh] = below[at[fresh]] < 0
        at, owner = at[fresh], owner[fresh]
        below[at] = owner
        at = pages.index(pages.lru_next[at])
    found = np.flatnonzero(below >= 0).astype(np.int64)
    return Deposits(found, below[found], mappings, read=bool(len(found)) or not mappings)


def _huge_anonymous(flags: U64, entries: U64) -> int:
    """How many of `entries` map a huge page of anonymous memory, or the huge zero page."""
    wanted = np.uint64(PRESENT | PSE | USER)
    huge = entries[(entries & wanted) == wanted]
    pfn = ((huge >> np.uint64(PFN_SHIFT)) & np.uint64(PFN_MASK)).astype(np.int64) & -ENTRIES_PER_TABLE
    of = flags[pfn[pfn < len(flags)]]
    return int((flag_set(of, KPF_ANON, KPF_ZERO_PAGE) & ~flag_set(of, KPF_HUGE)).sum())


def _stacks(vpn: I64) -> Bool:
    """Which of the pages belong to a kernel stack: an area of just the size and alignment of one.

    With VMAP_STACK each stands by itself between guard pages (alloc_thread_stack_node(), kernel/fork.c).
    """
    order = np.argsort(vpn, kind="stable")
    sorted_vpn = vpn[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(sorted_vpn) != 1])) if len(vpn) else order
    lengths = np.diff(np.concatenate([starts, [len(vpn)]]))
    whole = (lengths == _STACK_PAGES) & (sorted_vpn[starts] % _STACK_PAGES == 0)
    stack = np.zeros(len(vpn), dtype=np.bool_)
    stack[order] = np.repeat(whole, lengths)
    return stack


@dataclass(frozen=True)
class _StructPages:
    """Fields of the struct page of each frame, shape (frames,); `known` where it was read."""

    known: Bool
    refcount: U32
    mapcount: U32
    lru_next: U64
    lru_prev: U64
    address: U64  # of the lru field itself

    @classmethod
    def of(cls, raw: RawEvidence, frames: int) -> _StructPages:
        layout = raw.vmcoreinfo
        words = raw.struct_pages.reshape(-1, layout.page_bytes // 4)
        per_frame = PAGE_BYTES // layout.page_bytes
        pfn = (raw.first[:, None] + np.arange(per_frame)).ravel()
        inside = pfn < frames
        pfn, words = pfn[inside], words[inside]
        known = np.zeros(frames, dtype=np.bool_)
        known[pfn] = True

        def narrow(offset: int) -> U32:
            values = np.zeros(frames, dtype=np.uint32)
            values[pfn] = words[:, offset // 4]
            return values

        def wide(offset: int) -> U64:
            values = np.zeros(frames, dtype=np.uint64)
            low, high = words[:, offset // 4], words[:, offset // 4 + 1]
            values[pfn] = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)
            return values

        address = np.uint64(layout.vmemmap + layout.lru) + np.arange(frames, dtype=np.uint64) * np.uint64(
            layout.page_bytes
        )
        return cls(
            known,
            narrow(layout.refcount),
            narrow(layout.mapcount),
            wide(layout.lru),
            wide(layout.lru + 8),
            address,
        )

    @property
    def pinned(self) -> Bool:
        """So many references that folio_maybe_dma_pinned() says yes; small folios only."""
        signed = self.refcount.astype(np.int32)
        pinned: Bool = self.known & (signed >= _PIN_REFERENCES)
        return pinned

    @property
    def in_page_pool(self) -> Bool:
        """Belongs to a network driver's page pool."""
        signed: Bool = (self.lru_next & np.uint64(_PP_MASK)) == np.uint64(_PP_SIGNATURE)
        return self.known & signed

    def on_cpu_list(self, silent: Bool) -> Bool:
        """Frames that are free on a per-CPU list, among the `silent` ones.

        Nothing holds a reference to such a page, and its list neighbours point back at it; the pages
        behind the head of a larger chunk are on no list and look like nothing at all.
        """
        unused = silent & self.known & (self.refcount == 0) & (self.mapcount == _NO_TYPE)
        unused &= (self.lru_next & np.uint64(_COMPOUND_TAIL)) == 0
        # A list of one: both point at its head in the per-CPU area.
        kernel = (self.lru_next >> np.uint64(63) != 0) & (
            (self.lru_next & np.uint64(0xFFFF << 48)) != np.uint64(_POISON_BITS)
        )
        single = (self.lru_next == self.lru_prev) & kernel & (self.index(self.lru_next) < 0)
        heads = unused & (
            self._points_back(self.lru_next, self.lru_prev)
            | self._points_back(self.lru_prev, self.lru_next)
            | single
        )
        found: Bool = heads.copy()
        for order in _CPU_LIST_ORDERS:
            size = 1 << order
            whole = len(heads) // size * size
            tails = (unused & ~heads)[:whole].reshape(-1, size)
            chunk = heads[:whole:size] & tails[:, 1:].all(axis=1)
            found[:whole].reshape(-1, size)[chunk] = True
        return found

    def index(self, pointer: U64) -> I64:
        """The frame whose lru field is at `pointer`; -1 where that is no struct page's."""
        offset = (pointer - self.address[0]).astype(np.int64)
        size = int(self.address[1] - self.address[0])
        inside = (offset >= 0) & (offset < size * len(self.address)) & (offset % size == 0)
        return np.where(inside, offset // size, -1)

    def _points_back(self, forth: U64, back: U64) -> Bool:
        at = self.index(forth)
        found: Bool = (at >= 0) & (back[at] == self.address)
        return found

"""Page-table entries of x86-64: what each one is, counted per table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orchestrator.model.frame_class import FrameClass
from orchestrator.model.frames import KPF_MMAP, KPF_PGTABLE, KPF_ZERO_PAGE, flag_set
from orchestrator.model.snapshot import I16, I64, U8, U16, U64, Bool, Snapshot

# Bits of an entry: arch/x86/include/asm/pgtable_types.h, Intel SDM vol. 3A, 4.5.4.
PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
ACCESSED = 1 << 5
DIRTY = 1 << 6
PSE = 1 << 7  # at level 2 and up: maps a huge page. At level 1 this bit is PAT.
GLOBAL = 1 << 8
NX_BIT = 63
PFN_SHIFT = 12
PFN_MASK = (1 << 40) - 1  # physical address bits 12..51
_FLAG_BITS = 0xFFF

# A huge page's address is aligned to 2 MiB: pfn bits 1..8 are zero (bit 0 is PAT there).
_HUGE_ALIGN_MASK = 0x1FE
_HUGE_PFN_MASK = PFN_MASK & ~0x1FF

# Entries are looked at this many at a time, so that intermediate arrays stay in the cache: 102 million
# entries in one go need 5 GB and twice the time.
_CHUNK_ENTRIES = 1 << 18

# What is known of the frame that an entry points at.
_IS_TABLE = 1
_IS_ZERO_PAGE = 2
_MAY_BE_UNFLAGGED_TABLE = 4
_IS_PAGE_CACHE = 8


@dataclass(frozen=True)
class EntryCounts:
    """Counts of entries per table, each of shape (tables,), and the links between tables.

    A link is an entry that points at a lower page table. `links[i]` counts those of table `i`;
    `link_source` / `link_slot` / `link_target` (one row per link whose target is in `table_pfn`) are the
    table it stands in, its slot and the table it points at, ordered by source and slot.
    """

    nonzero: I16
    present: I16
    accessed: I16  # present entries with the accessed bit
    huge: I16  # present entries with PSE; at level 1 these are PAT bits
    misaligned_huge: I16  # those of them that no huge page can have
    huge_shaped: Bool  # has an entry with PSE, present or PROT_NONE
    zero_page: I16  # map the zero page or the huge zero page
    user_leaves: I16  # map memory (are no links) with _PAGE_USER
    kernel_leaves: I16  # map memory without _PAGE_USER
    page_cache: I16  # map pages of files on a disk
    links: I16  # of all kinds
    unflagged_links: I16  # to a kernel table that has no KPF_PGTABLE
    link_source: I64
    link_slot: U16
    link_target: I64


def count_entries(snapshot: Snapshot, classes: U8) -> EntryCounts:
    """Look at every entry once. `classes` is `classify_frames(snapshot)`."""
    tables = snapshot.tables
    names = (
        *("present", "accessed", "huge", "misaligned_huge", "zero_page"),
        *("user_leaves", "kernel_leaves", "page_cache", "links", "unflagged_links"),
    )
    counts = {name: np.zeros(tables, dtype=np.int16) for name in names}
    huge_shaped = np.zeros(tables, dtype=np.bool_)
    known = _known_of_frames(snapshot, classes)
    link_entries = [np.empty(0, dtype=np.int64)]
    for first, last in _chunks(snapshot.entry_start):
        begin, end = int(snapshot.entry_start[first]), int(snapshot.entry_start[last])
        bounds = snapshot.entry_start[first : last + 1] - begin
        masks, shaped, links = _classify(snapshot.entry_value[begin:end], known)
        for name, mask in masks.items():
            counts[name][first:last] = _per_table(mask, bounds)
        huge_shaped[first:last] = _per_table(shaped, bounds) > 0
        link_entries.append(np.flatnonzero(links) + begin)
    source, slot, target = _resolve(snapshot, np.concatenate(link_entries))
    return EntryCounts(
        nonzero=np.diff(snapshot.entry_start).astype(np.int16),
        huge_shaped=huge_shaped,
        link_source=source,
        link_slot=slot,
        link_target=target,
        **counts,
    )


def _known_of_frames(snapshot: Snapshot, classes: U8) -> U8:
    """Bit set per frame, shape (frames + 1,); the last stands for every frame beyond."""
    known = np.zeros(len(snapshot.flags) + 1, dtype=np.uint8)
    frames = known[:-1]
    frames[flag_set(snapshot.flags, KPF_PGTABLE)] |= _IS_TABLE
    frames[snapshot.table_pfn] |= _IS_TABLE
    frames[flag_set(snapshot.flags, KPF_ZERO_PAGE)] |= _IS_ZERO_PAGE
    frames[classes == FrameClass.PAGE_CACHE] |= _IS_PAGE_CACHE
    kernels = (classes == FrameClass.KERNEL) | (classes == FrameClass.RESERVED)
    frames[kernels & ~flag_set(snapshot.flags, KPF_MMAP, KPF_PGTABLE)] |= _MAY_BE_UNFLAGGED_TABLE
    return known


def _classify(values: U64, known: U8) -> tuple[dict[str, Bool], Bool, Bool]:
    """What the entries `values` (m,) are: masks (m,) to count, has PSE, links to a flagged table."""
    bits = (values & np.uint64(_FLAG_BITS)).astype(np.uint16)
    no_execute = (values >> np.uint64(NX_BIT)) != 0
    pfn = ((values >> np.uint64(PFN_SHIFT)) & np.uint64(PFN_MASK)).astype(np.int64)
    present = (bits & PRESENT) != 0
    user = (bits & USER) != 0
    huge_shaped = (bits & PSE) != 0
    huge = present & huge_shaped
    misaligned = huge & ((pfn & _HUGE_ALIGN_MASK) != 0)
    pfn[huge] &= _HUGE_PFN_MASK
    np.minimum(pfn, len(known) - 1, out=pfn)
    target = known[pfn]

    # Links are written as _PAGE_TABLE, the kernel's own as well (pmd_populate_kernel() and friends in
    # asm/pgalloc.h), so USER says nothing about a link. The direct map reaches page tables through PTEs
    # that are GLOBAL, or (with PTI) not GLOBAL but NX and not USER. NX with USER is a link again:
    # pti_set_user_pgtbl() puts NX on the user half of the kernel's PGD.
    direct_map = ((bits & GLOBAL) != 0) | (no_execute & ~user)
    link = present & ~huge_shaped & ((target & _IS_TABLE) != 0) & ~direct_map
    # Kernel PTE tables on 6.12, and everything that was set up before the allocator, carry no
    # KPF_PGTABLE. Only a link is at once writable, dirty, executable and not global while its frame is
    # the kernel's and not mapped by any process.
    shape = bits & np.uint16(PRESENT | WRITABLE | DIRTY | PSE | GLOBAL)
    unflagged = shape == (PRESENT | WRITABLE | DIRTY)
    unflagged &= ~no_execute & ((target & _MAY_BE_UNFLAGGED_TABLE) != 0)
    leaf = present & ~link & ~unflagged
    masks = {
        "present": present,
        "accessed": present & ((bits & ACCESSED) != 0),
        "huge": huge,
        "misaligned_huge": misaligned,
        "zero_page": leaf & ((target & _IS_ZERO_PAGE) != 0),
        "user_leaves": leaf & user,
        "kernel_leaves": leaf & ~user,
        "page_cache": leaf & user & ((target & _IS_PAGE_CACHE) != 0),
        "links": link | unflagged,
        "unflagged_links": unflagged,
    }
    return masks, huge_shaped, link


def _chunks(entry_start: I64) -> Iterator[tuple[int, int]]:
    """Ranges of tables that hold about _CHUNK_ENTRIES entries each."""
    first, tables = 0, len(entry_start) - 1
    while first < tables:
        wanted = entry_start[first] + _CHUNK_ENTRIES
        last = max(int(np.searchsorted(entry_start, wanted, side="right")) - 1, first + 1)
        yield first, last
        first = last


def _per_table(mask: Bool, bounds: I64) -> I64:
    """How many of `mask` (m,) are set in each `bounds[i] <= k < bounds[i + 1]`."""
    # Sums over positions of set bits: most masks are sparse, and reduceat() mistreats empty ranges.
    return np.diff(np.searchsorted(np.flatnonzero(mask), bounds))


def _resolve(snapshot: Snapshot, entries: I64) -> tuple[I64, U16, I64]:
    """Source table, slot and target table of link entries; links to unread tables are dropped."""
    pfn = ((snapshot.entry_value[entries] >> np.uint64(PFN_SHIFT)) & np.uint64(PFN_MASK)).astype(np.int64)
    source = np.searchsorted(snapshot.entry_start, entries, side="right") - 1
    target = np.searchsorted(snapshot.table_pfn, pfn)
    target[target == snapshot.tables] = 0
    read = (
        (snapshot.table_pfn[target] == pfn) & (source != target) if len(pfn) else np.zeros(0, dtype=np.bool_)
    )
    return source[read], snapshot.entry_slot[entries[read]], target[read]

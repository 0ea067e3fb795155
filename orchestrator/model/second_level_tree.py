"""KVM's second-level tables of a host, found by what is in them.

A host that is a guest of ours can be read from outside. KVM's tables carry no flag there, but their entries
are unlike anything else (arch/x86/kvm/mmu/spte.h): one that maps has SPTE_MMU_PRESENT_MASK, one that does
not is SHADOW_NONPRESENT_VALUE, which on x86-64 since Linux 6.10 is not zero, and one for a place without
memory faults on purpose. Their count can be checked against SecPageTables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from orchestrator.model.snapshot import I16, I64, U8, U64, Bool
from orchestrator.model.tables import LAST_LEVEL, TOP_LEVEL
from orchestrator.units import ENTRIES_PER_TABLE

NONPRESENT: Final = np.uint64(1 << 63)
MMU_PRESENT: Final = np.uint64(1 << 11)
PSE: Final = np.uint64(1 << 7)
ACCESSED: Final = {"NPT": np.uint64(1 << 5), "EPT": np.uint64(1 << 8)}
# kvm_mmu_set_mmio_spte_mask(): a reserved bit with the present one, or EPT's writable and not readable.
_MMIO_NPT: Final = np.uint64(1 << 51 | 1)
_EPT_RWX, _EPT_MISCONFIGURED = np.uint64(0b111), np.uint64(0b110)
_PFN_SHIFT, _PFN_MASK = np.uint64(12), np.uint64((1 << 40) - 1)
_UNLINKED = 0


@dataclass(frozen=True)
class SecondLevelTree:
    """Tables `pfn` (n,), sorted, and of each: its `level`, entries that map memory, of these the zero page
    and accessed ones, and links to lower tables. Link i stands in table `link_source[i]` (links,), at
    place `link_slot[i]`, and leads to table `link_target[i]`: indices into these arrays.

    Level 1 maps pages of 4 KiB; 0 are those that no table points at and that point at none: zapped ones wait
    so until they are freed, and KVM keeps a stock of blank ones.
    """

    pfn: I64
    level: U8
    mapped: I16
    zero_page: I16
    accessed: I16
    links: I16
    link_source: I64
    link_target: I64
    link_slot: I64

    @property
    def linked(self) -> Bool:
        """Those that KVM uses: what SecPageTables counts."""
        used: Bool = self.level != _UNLINKED
        return used

    @property
    def last_level(self) -> Bool:
        """Those that map pages of 4 KiB."""
        last: Bool = self.level == LAST_LEVEL
        return last

    @cached_property
    def in_use(self) -> Bool:
        """Those that map something, and those above them."""
        used: Bool = self.linked & (self.mapped > 0)
        for level in range(LAST_LEVEL + 1, TOP_LEVEL + 1):
            leads = used[self.link_target] & (self.level[self.link_source] == level)
            used[self.link_source[leads]] = True
        return used

    @cached_property
    def number(self) -> I64:
        """Of each, what it maps: the guest-physical address divided by the size of what a table of its level
        maps, 2 MiB for the last one. 0 for a root, and for what no table points at."""
        found = np.zeros(len(self.pfn), dtype=np.int64)
        for level in range(TOP_LEVEL, LAST_LEVEL, -1):
            down = self.level[self.link_source] == level
            above = found[self.link_source[down]]
            found[self.link_target[down]] = above * ENTRIES_PER_TABLE + self.link_slot[down]
        return found


def looks_like_table(contents: U64) -> Bool:
    """Which frames, shape (n, 512), have nothing but entries of second-level tables in them."""
    blank = contents == NONPRESENT
    mapped = (contents & MMU_PRESENT) != 0
    mmio = ((contents & _MMIO_NPT) == _MMIO_NPT) | ((contents & _EPT_RWX) == _EPT_MISCONFIGURED)
    found: Bool = (blank | mapped | mmio).all(axis=1) & (blank | mapped).any(axis=1)
    return found


def has_blank_entries(contents: U64) -> bool:
    """Whether the kernel marks entries that map nothing. One before Linux 6.10 has zeros there, so that only
    full tables look like any: what is found of it says nothing."""
    return bool((contents == NONPRESENT).any())


def decode_tree(pfn: I64, contents: U64, zero_pages: I64, second_level: str) -> SecondLevelTree:
    """The tree of the tables `pfn` (sorted), with `contents` (n, 512). `zero_pages` (sorted) are frames."""
    mapped = (contents & MMU_PRESENT) != 0
    target = ((contents >> _PFN_SHIFT) & _PFN_MASK).astype(np.int64)
    place = np.searchsorted(pfn, target)
    hit = mapped & ((contents & PSE) == 0) & (place < len(pfn))
    hit[hit] = pfn[place[hit]] == target[hit]
    source, slot = np.nonzero(hit)
    child = place[hit]
    leaf = mapped & ~hit
    return SecondLevelTree(
        pfn=pfn,
        level=_levels(len(pfn), source, child),
        mapped=leaf.sum(axis=1).astype(np.int16),
        zero_page=(leaf & np.isin(target, zero_pages)).sum(axis=1).astype(np.int16),
        accessed=(leaf & ((contents & ACCESSED[second_level]) != 0)).sum(axis=1).astype(np.int16),
        links=hit.sum(axis=1).astype(np.int16),
        link_source=source,
        link_target=child,
        link_slot=slot,
    )


def _levels(tables: int, source: I64, child: I64) -> U8:
    """The root of a guest is its topmost table; all roots of a host are of one level, four or five."""
    depth = np.full(tables, -1, dtype=np.int64)
    roots = np.setdiff1d(source, child)
    depth[roots] = 0
    for below in range(1, 6):
        reached = child[depth[source] == below - 1]
        depth[reached] = below
    deepest = int(depth.max(initial=0))
    top = 5 if deepest >= 4 else 4
    level = np.where(depth < 0, _UNLINKED, top - depth)
    return np.maximum(level, _UNLINKED).astype(np.uint8)

"""The kernel's own address space in a guest, walked from outside: where its memory is mapped, and by what.

The kernel says where its page tables and struct pages are in VMCOREINFO (kernel/vmcore_info.c), which is
there for crash dumps; so no symbol table and no knowledge of a version is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from orchestrator.model.entries import PFN_MASK, PFN_SHIFT, PRESENT, PSE
from orchestrator.model.snapshot import I64, U64
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# Sorted frame numbers -> those of them that can be read, and their contents as (n, 512) u64.
ReadFrames = Callable[[I64], tuple[I64, U64]]

_LINE = re.compile(rb"([A-Z]{4,8})\(([A-Za-z0-9_.]{1,64})\)=(-?(?:0x)?[0-9a-f]{1,20})$", re.MULTILINE)
_KERNEL_TEXT = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map, arch/x86/include/asm/page_64_types.h
_MODULES = 0xFFFF_FFFF_A000_0000  # the lowest MODULES_VADDR, asm/pgtable_64_types.h
_MODULES_END = 0xFFFF_FFFF_FF00_0000  # where the fixmap begins
_INDEX_BITS = 9
_FIRST_KERNEL_SLOT = ENTRIES_PER_TABLE // 2
_ADDRESS_BITS = 64
# A kernel of 2 TiB has some thousand tables of its own; a guest that shows more is up to something.
_MOST_TABLES = 1 << 18
_MOST_PAGES = 1 << 26  # 256 GiB of vmalloc, or the struct pages of 16 TiB


class NotFoundError(Exception):
    """The kernel does not say, or what it says cannot be; the text says which."""


@dataclass(frozen=True)
class VmcoreInfo:
    """Where a guest's kernel keeps things. Addresses are virtual, sizes and offsets bytes."""

    root_pfn: int  # of swapper_pg_dir
    levels: int  # 4 or 5
    vmalloc: int
    vmemmap: int
    page_bytes: int  # sizeof(struct page)
    lru: int  # offsets in struct page
    mapcount: int
    refcount: int

    def page_number(self, address: int) -> int:
        """Number of a virtual page below the root, as `Mappings.vpn` counts."""
        return address % (1 << (self.levels * _INDEX_BITS + PFN_SHIFT)) >> PFN_SHIFT


def parse_vmcoreinfo(vmcoreinfo: bytes) -> VmcoreInfo:
    """The layout that VMCOREINFO tells. Raises NotFoundError with what is missing in it."""
    said: dict[str, int] = {}
    for kind, name, text in _LINE.findall(vmcoreinfo):
        # Addresses are hexadecimal without 0x; numbers are decimal, or hexadecimal with it.
        base = 16 if kind == b"SYMBOL" else 0
        try:
            said[f"{kind.decode()}({name.decode()})"] = int(text, base)
        except ValueError:
            continue

    def value(*names: str) -> int:
        for name in names:
            if name in said:
                return said[name]
        raise NotFoundError(f"VMCOREINFO has no {names[0]}")

    root = value("SYMBOL(swapper_pg_dir)") - _KERNEL_TEXT + value("NUMBER(phys_base)")
    layout = VmcoreInfo(
        root_pfn=root // PAGE_BYTES,
        levels=5 if said.get("NUMBER(pgtable_l5_enabled)") else 4,
        vmalloc=value("NUMBER(VMALLOC_START)"),
        vmemmap=value("SYMBOL(vmemmap)"),
        page_bytes=value("SIZE(page)"),
        lru=value("OFFSET(page.lru)"),
        mapcount=value("OFFSET(page._mapcount)"),
        refcount=value("OFFSET(page._refcount)"),
    )
    fits = layout.page_bytes in {32, 64, 128} and root > 0 and root % PAGE_BYTES == 0
    inside = all(0 <= at <= layout.page_bytes - 4 for at in (layout.lru, layout.mapcount, layout.refcount))
    aligned = layout.lru % 8 == layout.mapcount % 4 == layout.refcount % 4 == 0
    high = min(layout.vmalloc, layout.vmemmap) >= 1 << (_ADDRESS_BITS - 1)
    if not (fits and inside and aligned and high and layout.vmalloc < layout.vmemmap):
        raise NotFoundError(f"VMCOREINFO makes no sense: {layout}")
    return layout


@dataclass(frozen=True)
class Mappings:
    """The kernel's half of the address space, in pages of 4 KiB.

    `tables` (t,) are the frames of all its page tables, sorted; `root` (512,) the entries of the topmost.
    `vpn`, `pfn`, `pages` (m,): from virtual page `vpn` on, `pages` pages are mapped to frames from `pfn` on.
    """

    tables: I64
    root: U64
    vpn: I64
    pfn: I64
    pages: I64

    def between(self, first: int, end: int) -> tuple[I64, I64]:
        """Virtual page numbers in `first <= vpn < end`, sorted, and their frames. Raises NotFoundError."""
        inside = (self.vpn >= first) & (self.vpn < end)
        vpn, pfn, pages = self.vpn[inside], self.pfn[inside], self.pages[inside]
        if pages.sum() > _MOST_PAGES:
            raise NotFoundError("the kernel's page tables make no sense: they map too much")
        step = np.arange(int(pages.sum()), dtype=np.int64) - np.repeat(np.cumsum(pages) - pages, pages)
        vpn, pfn = np.repeat(vpn, pages) + step, np.repeat(pfn, pages) + step
        order = np.argsort(vpn, kind="stable")
        keep = vpn[order] < end
        return vpn[order][keep], pfn[order][keep]

    def vmalloc(self, layout: VmcoreInfo) -> tuple[I64, I64]:
        """Pages of vmalloc and module space, as `between`."""
        first = self.between(layout.page_number(layout.vmalloc), layout.page_number(layout.vmemmap))
        second = self.between(layout.page_number(_MODULES), layout.page_number(_MODULES_END))
        return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def walk(read: ReadFrames, layout: VmcoreInfo) -> Mappings:
    """Follow the kernel's page tables from their root. Raises NotFoundError when they make no sense."""
    frame = np.array([layout.root_pfn], dtype=np.int64)
    vpn = np.zeros(1, dtype=np.int64)
    tables: list[I64] = []
    leaves: list[tuple[I64, I64, I64]] = []
    root: U64 | None = None
    for level in range(layout.levels, 0, -1):
        wanted, which = np.unique(frame, return_inverse=True)
        found, contents = read(wanted)
        tables.append(found)
        if level == layout.levels:
            if not len(found):
                raise NotFoundError("QEMU has no page where the kernel's page tables should be")
            root = contents[0]
            contents = contents.copy()
            contents[0, :_FIRST_KERNEL_SLOT] = 0
        row = np.minimum(np.searchsorted(found, wanted), max(len(found) - 1, 0))
        there = (found[row] == wanted)[which] if len(found) else np.zeros(len(frame), dtype=np.bool_)
        table = np.flatnonzero(there)
        if level > 1:
            # Counted by the tables that there are, before each is looked at as often as it is pointed at.
            below = ((contents & np.uint64(PRESENT | PSE)) == PRESENT).sum(axis=1)
            if below[row[which[table]]].sum() > _MOST_TABLES:
                raise NotFoundError("the kernel's page tables make no sense: there are too many")
        entries = contents[row[which[table]]]
        source, slot = np.nonzero(entries & np.uint64(PRESENT))
        value = entries[source, slot]
        span = ENTRIES_PER_TABLE ** (level - 1)
        at = vpn[table[source]] + slot * span
        target = ((value >> np.uint64(PFN_SHIFT)) & np.uint64(PFN_MASK)).astype(np.int64)
        leaf = (value & np.uint64(PSE)) != 0 if level > 1 else np.ones(len(value), dtype=np.bool_)
        pages = np.full(int(leaf.sum()), span, dtype=np.int64)
        leaves.append((at[leaf], target[leaf] // span * span, pages))  # bit 12 of a huge entry is PAT
        frame, vpn = target[~leaf], at[~leaf]
    assert root is not None  # noqa: S101  # there is at least one level
    parts = zip(*leaves, strict=True)
    return Mappings(np.unique(np.concatenate(tables)), root, *(np.concatenate(part) for part in parts))

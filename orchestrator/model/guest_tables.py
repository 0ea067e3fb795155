"""Radix page tables of a made-up guest as dense arrays, built from where its pages are.

Entries are written out one byte each, a few thousand tables at a time, and counted: a guest of 600 GiB has
157 million of them, and what is kept of a table is a few dozen bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.model.jit import njit
from orchestrator.model.snapshot import I16, I32, I64
from orchestrator.model.tables import LAST_LEVEL, PMD_LEVEL, TOP_LEVEL, Tables, TableState
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

# Tables whose entries are written out at once: 1 MiB of them, what fits a cache.
_CHUNK_TABLES = 2048

# Bits of an entry as it is written out.
_PRESENT, _ZERO_PAGE, _ACCESSED, _PAGE_CACHE = 1, 2, 4, 8


@dataclass(frozen=True)
class GuestMappings:
    """Where the entries of one address space are: per leaf table, each of shape (tables,).

    `number` (ascending) is the address divided by what such a table maps. `pages` of its entries are
    present, one after the other from a slot that chance picks, wrapping around; the first `zero_page` of
    them map the zero page, `page_cache` of the others page cache. All have the accessed bit where `age`
    is 0. `age` counts samples since an access, -1 where it is unknown.
    """

    number: I64
    pages: I16
    zero_page: I16
    page_cache: I16
    age: I32
    leaf_level: int = LAST_LEVEL
    """1: pages of 4 KiB; 2: of 2 MiB, with a deposited last-level table for each that is not page cache;
    3: of 1 GiB, which only hugetlb has, and that has none."""


@dataclass(frozen=True)
class GuestTables:
    """Tables of all levels of one address space, leaf tables first and deposited ones last.

    `tables.pfn` is the frame that the table itself occupies: as an allocator with nothing but free memory
    hands them out, upper tables, leaf table, then the pages that it maps.
    """

    tables: Tables

    @property
    def unmovable(self) -> I64:
        """Frames that cannot be moved, sorted: of page tables, since all else is mapped by a process."""
        return np.sort(self.tables.pfn)

    @property
    def table_bytes(self) -> int:
        """Size of all tables."""
        return len(self.tables) * PAGE_BYTES

    def level_counts(self) -> I64:
        """Number of tables by level, shape (6,); element 0 is 0."""
        return np.bincount(self.tables.level, minlength=TOP_LEVEL + 1).astype(np.int64)


def build_tables(layout: GuestMappings, *, levels: int = 4, seed: int = 0) -> GuestTables:
    """Write out every entry of `layout`, count them, and put the tables above on top.

    `levels` is 4 or 5. The same arguments give the same tables.
    """
    if levels not in {4, 5} or not LAST_LEVEL <= layout.leaf_level <= 3:
        raise ValueError(
            f"{levels} levels with leaves at level {layout.leaf_level}: x86-64 has 4 or 5, and 1 to 3"
        )
    leaves = len(layout.number)
    present, zero, accessed, cached = (np.empty(leaves, dtype=np.int16) for _ in range(4))
    _count(
        layout.pages, layout.zero_page, layout.page_cache, layout.age, seed, present, zero, accessed, cached
    )
    numbers, links, firsts = [layout.number], [np.zeros(leaves, dtype=np.int16)], [np.arange(leaves)]
    parents = []
    for _ in range(layout.leaf_level, levels):
        above = numbers[-1] // ENTRIES_PER_TABLE
        begins = (
            np.flatnonzero(np.concatenate(([True], above[1:] != above[:-1])))
            if leaves
            else np.empty(0, np.int64)
        )
        parents.append(np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(above)))))
        links.append(np.diff(np.append(begins, len(above))).astype(np.int16))
        firsts.append(firsts[-1][begins])
        numbers.append(above[begins])
    deposits = present - cached if layout.leaf_level == PMD_LEVEL else np.zeros_like(present)
    deposited_below = np.repeat(np.arange(leaves), deposits)
    sizes = [len(number) for number in numbers]
    start = np.cumsum([0, *sizes])
    parent = np.concatenate(
        [*(up + start[i + 1] for i, up in enumerate(parents)), np.full(sizes[-1], -1), deposited_below]
    )
    upper = int(start[-1]) - leaves
    level = np.repeat(
        np.array([*range(layout.leaf_level, levels + 1), LAST_LEVEL], dtype=np.uint8),
        [*sizes, len(deposited_below)],
    )
    nothing = np.zeros(upper + len(deposited_below), dtype=np.int16)
    whole_present = np.concatenate([present, *links[1:], nothing[upper:]])
    state = np.full(len(level), TableState.VALID, dtype=np.uint8)
    state[:leaves][zero == present] = TableState.ZERO_ONLY
    state[:leaves][present == 0] = TableState.EMPTY
    state[leaves + upper :] = TableState.DEPOSITED
    none_at_all = np.broadcast_to(np.int16(0), len(level))
    tables = Tables(
        pfn=_frames(layout.pages.astype(np.int64) << (9 * (layout.leaf_level - 1)), firsts, deposits),
        level=level,
        state=state,
        present=whole_present,
        huge=np.concatenate([present, nothing]) if layout.leaf_level > LAST_LEVEL else none_at_all,
        zero_page=np.concatenate([zero, nothing]),
        other_nonzero=none_at_all,
        accessed=np.concatenate([accessed, *links[1:], nothing[upper:]]),  # every walk down sets one
        links=np.concatenate([*links, nothing[upper:]]),
        kernel=np.broadcast_to(np.False_, len(level)),
        parent=parent,
        page_cache=np.concatenate([cached, nothing]),
    )
    return GuestTables(tables)


def _frames(pages: I64, firsts: list[I64], deposits: I16) -> I64:
    """Frame of every table: one upper table after the other where it begins, the leaf table, its pages (of
    4 KiB), and what is deposited for them."""
    frames_of = pages + deposits + 1
    for first in firsts[1:]:
        frames_of[first] += 1
    begin = np.cumsum(frames_of) - frames_of
    frames = []
    offset = np.zeros(len(pages), dtype=np.int64)
    for first in reversed(firsts[1:]):
        frames.append(begin[first] + offset[first])
        offset[first] += 1
    first_deposit = begin + offset + 1 + pages
    number = np.arange(deposits.sum()) - np.repeat(np.cumsum(deposits) - deposits, deposits)
    return np.concatenate([begin + offset, *reversed(frames), np.repeat(first_deposit, deposits) + number])


@njit
def _count(  # noqa: PLR0917  # numba takes no keywords
    pages: I16,
    zero_page: I16,
    page_cache: I16,
    age: I32,
    seed: int,
    present: I16,
    zero: I16,
    accessed: I16,
    cached: I16,
) -> None:
    """Write the entries of a chunk of tables, then count what stands there."""
    entries = np.empty((_CHUNK_TABLES, ENTRIES_PER_TABLE), dtype=np.uint8)
    words = entries.view(np.uint64)
    ones = np.uint64(0x0101010101010101)
    word = np.uint64(seed * 2 + 1) * np.uint64(0x9E3779B97F4A7C15)
    for first in range(0, len(pages), _CHUNK_TABLES):
        many = min(_CHUNK_TABLES, len(pages) - first)
        entries[:many] = 0
        for row in range(many):
            table = first + row
            word ^= word >> np.uint64(12)
            word ^= word << np.uint64(25)
            word ^= word >> np.uint64(27)
            at = int(word >> np.uint64(55))
            base = _PRESENT | (_ACCESSED if age[table] == 0 else 0)
            zeros, files = zero_page[table], page_cache[table]
            for page in range(pages[table]):
                bits = base
                if page < zeros:
                    bits |= _ZERO_PAGE
                elif page < zeros + files:
                    bits |= _PAGE_CACHE
                entries[row, (at + page) & (ENTRIES_PER_TABLE - 1)] = bits
        for row in range(many):
            # A byte a bit, eight entries at once: 64 additions at most in each byte.
            p = z = a = c = np.uint64(0)
            for at in range(words.shape[1]):
                eight = words[row, at]
                p += eight & ones
                z += (eight >> np.uint64(1)) & ones
                a += (eight >> np.uint64(2)) & ones
                c += (eight >> np.uint64(3)) & ones
            present[first + row] = _sum_bytes(p)
            zero[first + row] = _sum_bytes(z)
            accessed[first + row] = _sum_bytes(a)
            cached[first + row] = _sum_bytes(c)


@njit
def _sum_bytes(word: np.uint64) -> int:
    total = 0
    for byte in range(8):
        total += int((word >> np.uint64(8 * byte)) & np.uint64(0xFF))
    return total

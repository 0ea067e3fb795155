"""Page tables: the level, state and owner of each, worked out from contents alone.

No root is known: a snapshot holds the page-table pages of all processes and of the kernel as one heap.
A level follows from who points at whom (`_levels` has the rules). Read against x86-64 on 6.12, where
PGD and P4D pages are not marked as page tables, and on 7.x, where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from orchestrator.model.entries import EntryCounts, count_entries
from orchestrator.model.frames import classify_frames
from orchestrator.model.snapshot import I16, I64, U8, U16, Bool, Snapshot
from orchestrator.units import ENTRIES_PER_TABLE

LAST_LEVEL = 1  # a PTE table
PMD_LEVEL = 2  # whose entries map 2 MiB
TOP_LEVEL = 5  # a PGD with 5-level paging
UNKNOWN_LEVEL = 0

# The upper half of a PGD maps the kernel: bit 47 (or 56) of an address is its sign (Intel SDM 3.3.7.1).
_FIRST_KERNEL_SLOT = ENTRIES_PER_TABLE // 2


class TableState(IntEnum):
    """What a table's entries amount to."""

    EMPTY = 0  # no entry is non-zero
    ZERO_ONLY = 1  # all non-zero entries map the zero page or the huge zero page
    VALID = 2  # anything else: memory, lower tables, swap, migration
    # No entry either, and none will be: kept for a huge page of anonymous memory, for when that is split
    # (pgtable_trans_huge_deposit(), mm/huge_memory.c). It goes with its huge page; nothing else may free it.
    DEPOSITED = 3


@dataclass(frozen=True)
class Tables:
    """Every array is aligned with `Snapshot.table_pfn`, shape (tables,)."""

    pfn: I64
    level: U8  # 1: PTE table, 2: PMD table, ... 5; 0: unknown
    state: U8  # a TableState
    present: I16  # entries with the present bit
    huge: I16  # present entries that map a huge page
    zero_page: I16  # entries that map the zero page or the huge zero page
    other_nonzero: I16  # neither present nor zero: swap, migration, PROT_NONE
    accessed: I16  # present entries with the accessed bit
    links: I16  # entries that point at a lower table
    kernel: Bool  # belongs to the kernel's half of the address space
    parent: I64  # index of a table that points here (of a deposited one: at its huge page), -1: none known
    page_cache: I16  # present entries that map pages of files on a disk

    def __len__(self) -> int:
        return len(self.pfn)

    @cached_property
    def root(self) -> I64:
        """Index of the topmost table above each, shape (tables,); of one without any, its own.

        One for each address space: a PGD, or a PUD table where the kernel does not mark the levels above.
        """
        root = np.arange(len(self), dtype=np.int64)
        for _ in range(TOP_LEVEL - 1):
            above = self.parent[root]
            root = np.where(above >= 0, above, root)
        return root

    def counts(self) -> I64:
        """Number of tables by level and state, shape (6, 4)."""
        cells = np.bincount(self.level * len(TableState) + self.state, minlength=6 * len(TableState))
        return cells.reshape(6, len(TableState)).astype(np.int64)


def decode_tables(snapshot: Snapshot, classes: U8 | None = None) -> Tables:
    """Decode all tables of a snapshot. `classes` saves classifying the frames a second time."""
    classes = classify_frames(snapshot) if classes is None else classes
    entries = count_entries(snapshot, classes)
    user, kernel = _evidence(entries)
    level, parent, parent_slot = _levels(entries, user, kernel)
    state = np.full(len(level), TableState.VALID, dtype=np.uint8)
    state[entries.zero_page == entries.nonzero] = TableState.ZERO_ONLY
    state[entries.nonzero == 0] = TableState.EMPTY
    deposited, below = _deposited(snapshot, unlinked=(entries.nonzero == 0) & (parent < 0))
    level[deposited], state[deposited], parent[deposited] = LAST_LEVEL, TableState.DEPOSITED, below
    return Tables(
        pfn=snapshot.table_pfn,
        level=level,
        state=state,
        present=entries.present,
        huge=np.where(level > LAST_LEVEL, entries.huge, 0).astype(np.int16),
        zero_page=entries.zero_page,
        other_nonzero=entries.nonzero - entries.present,
        accessed=entries.accessed,
        links=entries.links,
        kernel=_kernel_owned(level, parent, parent_slot, user, kernel),
        parent=parent,
        page_cache=entries.page_cache,
    )


def _deposited(snapshot: Snapshot, unlinked: Bool) -> tuple[I64, I64]:
    """Indices of deposited tables, which are among the `unlinked` ones, and of the tables above."""
    if not snapshot.tables:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    frames = np.stack([snapshot.deposited_pfn, snapshot.deposited_below])
    at = np.minimum(np.searchsorted(snapshot.table_pfn, frames), snapshot.tables - 1)
    known = (snapshot.table_pfn[at] == frames).all(axis=0) & unlinked[at[0]]
    return at[0, known], at[1, known]


def _evidence(entries: EntryCounts) -> tuple[Bool, Bool]:
    """Whether a table, or one below it, maps anything for user space, for the kernel.

    Only leaf entries tell: the kernel's own links carry _PAGE_USER too. Only the kernel has links to
    tables that are not marked as such.
    """
    user = entries.user_leaves > 0
    kernel = (entries.kernel_leaves > 0) | (entries.unflagged_links > 0)
    for _ in range(TOP_LEVEL - 1):
        user[entries.link_source[user[entries.link_target]]] = True
        kernel[entries.link_source[kernel[entries.link_target]]] = True
    return user, kernel


def _heights(entries: EntryCounts) -> tuple[U8, Bool]:
    """Lowest level that each table can have, and whether that is its level for certain ("anchored").

    A table with entries but without links is a PTE table: certain, unless its entries have the shape of
    huge pages, which could stand at level 2 or 3. An empty table could be of any level. A table with a
    link is one above the highest that it points at, and certain as soon as one path down from it ends in
    a certain PTE table.
    """
    huge_only = entries.huge_shaped & (entries.misaligned_huge == 0)
    height = np.ones(len(entries.nonzero), dtype=np.uint8)
    height[huge_only | (entries.links > 0)] = 2
    # A link to a table that was not read, or not marked, is counted in `links` without a row of its own.
    anchored = (entries.nonzero > 0) & (entries.links == 0) & ~huge_only
    source, target = entries.link_source, entries.link_target
    for _ in range(TOP_LEVEL - 1):
        np.maximum.at(height, source, np.minimum(height[target] + 1, TOP_LEVEL).astype(np.uint8))
        anchored[source[anchored[target]]] = True
    return height, anchored


def _usual_level(height: U8, user_root: Bool, anchored: Bool) -> int:
    """The level of most anchored user roots; without any, the greatest height of the others."""
    certain = height[user_root & anchored]
    if not len(certain):
        return int(height[user_root].max(initial=UNKNOWN_LEVEL))
    votes = np.bincount(certain, minlength=TOP_LEVEL + 1)
    return TOP_LEVEL - int(np.argmax(votes[::-1]))  # the higher one of two with as many


def _levels(entries: EntryCounts, user: Bool, kernel: Bool) -> tuple[U8, I64, U16]:
    """Level (0: unknown), parent (-1: none) and the slot in that parent, per table.

    1. A table that none points at is a root, and an empty root stays unknown: it is new, on its way out, or
       deposited for a huge page, which only struct pages tell (`decode_tables`). A root that is anchored
       has its height as level.
    2. A user root that is not anchored (everything below it is empty) has the level that anchored user
       roots have, or its height where that is more: roots are PUD tables as long as the kernel does not
       mark higher ones, PGDs where it does, and every live process maps something.
    3. Below a root, a child is one level under its parent.

    Exact for a snapshot that is whole. Where tables are missing (unread, or torn by a guest that ran on),
    2 tends to place what is left too high: an empty PTE table is then taken for an upper one and not
    counted as freeable. Tables on a cycle stay unknown.
    """
    source, target = entries.link_source, entries.link_target
    height, anchored = _heights(entries)
    root = np.ones(len(height), dtype=np.bool_)
    root[target] = False
    root &= entries.nonzero > 0
    user_root = root & (user | ~kernel)
    level = np.where(root, height, UNKNOWN_LEVEL).astype(np.uint8)
    guessed = user_root & ~anchored
    level[guessed] = np.maximum(height[guessed], _usual_level(height, user_root, anchored))
    parent = np.full(len(level), -1, dtype=np.int64)
    slot = np.zeros(len(level), dtype=np.uint16)
    for above in range(TOP_LEVEL, LAST_LEVEL, -1):
        # Reversed: of several parents (the kernel's tables hang below every PGD) the first one stays.
        rows = np.flatnonzero((level[source] == above) & (level[target] == UNKNOWN_LEVEL))[::-1]
        level[target[rows]] = above - 1
        parent[target[rows]] = source[rows]
        slot[target[rows]] = entries.link_slot[rows]
    return level, parent, slot


def _kernel_owned(level: U8, parent: I64, slot: U16, user: Bool, kernel: Bool) -> Bool:
    """Which tables are the kernel's. One without evidence of its own belongs to whom its parent does.

    That matters for empty PTE tables below vmalloc space, which look like a process's: vunmap() leaves
    them in place. Without any evidence a table counts as user space: on kernels where no PGD tells, the
    kernel's PTE tables are not marked as page tables in the first place.
    """
    user, kernel = user.copy(), kernel.copy()
    for below in range(TOP_LEVEL - 1, 0, -1):
        silent = np.flatnonzero((level == below) & (parent >= 0) & ~user & ~kernel)
        above = parent[silent]
        mixed = user[above] & kernel[above]
        in_root = mixed & (parent[above] < 0)
        kernel[silent] = np.where(in_root, slot[silent] >= _FIRST_KERNEL_SLOT, kernel[above])
        user[silent] = np.where(in_root, slot[silent] < _FIRST_KERNEL_SLOT, user[above] & ~mixed)
    return kernel & ~user


def needed_tables(pages: Bool | I64, *, levels: int = 4) -> I64:
    """How many tables of each level it takes to map some pages with 4 KiB entries.

    `pages` is either a mask over consecutive page numbers from 0, or the sorted page numbers. Returns
    shape (levels + 1,): element 1 counts PTE tables, element `levels` the root; element 0 is 0. Nothing
    to map needs no tables.
    """
    if not 1 <= levels <= TOP_LEVEL:
        raise ValueError(f"{levels} levels: x86-64 has up to {TOP_LEVEL}")
    index = np.flatnonzero(pages) if pages.dtype == np.bool_ else pages
    if np.any(index[1:] < index[:-1]):
        raise ValueError("page numbers are not sorted")
    counts = np.zeros(levels + 1, dtype=np.int64)
    for level in range(1, levels + 1):
        index = index // ENTRIES_PER_TABLE
        index = index[np.concatenate(([True], index[1:] != index[:-1]))] if len(index) else index
        counts[level] = len(index)
    return counts

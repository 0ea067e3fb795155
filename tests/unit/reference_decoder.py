"""Page tables decoded one at a time in plain Python: slow, recursive, written from the rules in words.

Shares nothing with orchestrator.model but Snapshot, so that the two can be compared.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orchestrator.model.snapshot import Snapshot


@dataclass
class Table:
    level: int = 0
    state: str = "empty"
    present: int = 0
    zero: int = 0
    other: int = 0
    accessed: int = 0
    huge: int = 0
    kernel: bool = False
    parent: int = -1
    parent_slot: int = 0
    links: int = 0
    children: list[tuple[int, int]] = field(default_factory=list)  # slot, index
    user_leaf: bool = False
    kernel_leaf: bool = False
    huge_shaped: bool = False
    crooked_huge: bool = False
    entries: int = 0


def _bit(value: int, number: int) -> bool:
    return bool(value >> number & 1)


def decode(snapshot: Snapshot) -> list[Table]:
    """One Table per table_pfn. The snapshot must have no cycles of tables."""
    machine = _Machine(
        flags=[int(flag) for flag in snapshot.flags],
        index_of={int(pfn): i for i, pfn in enumerate(snapshot.table_pfn)},
    )
    tables = [Table() for _ in machine.index_of]
    for i, table in enumerate(tables):
        for k in range(int(snapshot.entry_start[i]), int(snapshot.entry_start[i + 1])):
            _add_entry(table, int(snapshot.entry_slot[k]), int(snapshot.entry_value[k]), machine)
        table.children = [(slot, child) for slot, child in table.children if child != i]
        if table.entries:
            table.state = "zero" if table.zero == table.entries else "valid"
    walker = _Walker(tables)
    walker.place()
    owner: dict[int, str] = {}
    for i in sorted(range(len(tables)), key=lambda i: -tables[i].level):
        user, kernel = walker.below(i, "user_leaf"), walker.below(i, "kernel_leaf")
        owner[i] = _owner(tables[i], user, kernel, tables, owner)
    for i, table in enumerate(tables):
        table.kernel = owner[i] == "kernel"
        table.huge = table.huge if table.level > 1 else 0
    return tables


@dataclass(frozen=True)
class _Machine:
    flags: list[int]
    index_of: dict[int, int]


class _Walker:
    """Recursive questions about tables."""

    def __init__(self, tables: list[Table]) -> None:
        self.tables = tables

    def height(self, i: int) -> int:
        table = self.tables[i]
        least = 2 if table.links or (table.huge_shaped and not table.crooked_huge) else 1
        return max([least, *(self.height(child) + 1 for _, child in table.children)])

    def certain(self, i: int) -> bool:
        table = self.tables[i]
        huge = table.huge_shaped and not table.crooked_huge
        is_pte_table = table.entries > 0 and not table.links and not huge
        return is_pte_table or any(self.certain(child) for _, child in table.children)

    def below(self, i: int, attribute: str) -> bool:
        found: bool = getattr(self.tables[i], attribute)
        return found or any(self.below(child, attribute) for _, child in self.tables[i].children)

    def place(self) -> None:
        pointed_at = {child for table in self.tables for _, child in table.children}
        roots = [i for i, table in enumerate(self.tables) if i not in pointed_at and table.entries]
        user_roots = [i for i in roots if self.below(i, "user_leaf") or not self.below(i, "kernel_leaf")]
        votes = Counter(self.height(i) for i in user_roots if self.certain(i))
        usual = max(votes, key=lambda level: (votes[level], level), default=0)
        usual = usual or max((self.height(i) for i in user_roots), default=0)
        for i in roots:
            guessed = i in user_roots and not self.certain(i)
            self.tables[i].level = max(self.height(i), usual) if guessed else self.height(i)
        for level in range(5, 1, -1):
            for i in [i for i, table in enumerate(self.tables) if table.level == level]:
                self._adopt(i)

    def _adopt(self, i: int) -> None:
        for slot, child in self.tables[i].children:
            if not self.tables[child].level:
                self.tables[child].level = self.tables[i].level - 1
                self.tables[child].parent, self.tables[child].parent_slot = i, slot


def _owner(table: Table, user: bool, kernel: bool, tables: list[Table], owner: dict[int, str]) -> str:
    if user and kernel:
        return "both"
    if user or kernel:
        return "user" if user else "kernel"
    if table.parent < 0:
        return "nobody"
    above = owner[table.parent]
    if above != "both":
        return above
    if tables[table.parent].parent < 0:
        return "kernel" if table.parent_slot >= 256 else "user"
    return "kernel"


def _add_entry(table: Table, slot: int, value: int, machine: _Machine) -> None:
    table.entries += 1
    pse, is_global, no_execute = _bit(value, 7), _bit(value, 8), _bit(value, 63)
    table.huge_shaped |= pse
    if not _bit(value, 0):
        table.other += 1
        return
    table.present += 1
    table.accessed += _bit(value, 5)
    pfn = value >> 12 & (1 << 40) - 1
    if pse:
        table.huge += 1
        table.crooked_huge |= bool(pfn & 0x1FE)
        pfn -= pfn % 512
    of_frame = machine.flags[pfn] if pfn < len(machine.flags) else None
    user = _bit(value, 2)
    if not pse and not is_global and not (no_execute and not user):
        is_table = pfn in machine.index_of or (of_frame is not None and _bit(of_frame, 26))
        if is_table:
            table.links += 1
            child = machine.index_of.get(pfn)
            if child is not None:
                table.children.append((slot, child))
            return
        # Only two kinds of frames are ever built here that may be an unflagged table: 0 and RESERVED.
        if _bit(value, 1) and _bit(value, 6) and not no_execute and of_frame in {0, 1 << 32}:
            table.links += 1
            table.kernel_leaf = True
            return
    table.zero += of_frame is not None and _bit(of_frame, 24)
    if user:
        table.user_leaf = True
    else:
        table.kernel_leaf = True

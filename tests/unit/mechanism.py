"""The talk's mechanism step by step, so that every interleaving of a touch and a reclaim can be tried.

A last-level table counts its entries. At zero it is frozen; then the entry in its parent is cleared; then
it is freed. A touch that meets a frozen table is abandoned and comes again, and builds a new table once the
parent entry is clear. Tables wait on the list of their memory cgroup, which pressure walks at random.
Policies `empty`, `zero_page` and `pressure_random` say of many tables what comes of it; here is how.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from orchestrator.units import ENTRIES_PER_TABLE


class Phase(Enum):
    """How far a table is on its way out."""

    LIVE = "live"
    FROZEN = "frozen"  # no entries may be added any more
    UNLINKED = "unlinked"  # the parent's entry is clear: no walk reaches it
    FREED = "freed"


class Touched(Enum):
    """What a touch met."""

    SERVED = "served"
    RETRY = "retry"


@dataclass
class CountedTable:
    """A last-level table; `entries` are the slots that map something, those in `zero` the zero page."""

    number: int
    memcg: int
    entries: set[int] = field(default_factory=set)
    zero: set[int] = field(default_factory=set)
    phase: Phase = Phase.LIVE

    @property
    def references(self) -> int:
        """The reference count: entries that hold something that could be lost."""
        return len(self.entries - self.zero)


@dataclass
class TableHeap:
    """Last-level tables below the entries of their parents, and the list of each memory cgroup."""

    parent: dict[int, CountedTable] = field(default_factory=dict)  # by table number: the entry above
    lists: dict[int, list[CountedTable]] = field(default_factory=dict)  # by memory cgroup
    freed: list[CountedTable] = field(default_factory=list)

    def touch(self, number: int, slot: int, *, memcg: int = 0, zero: bool = False) -> Touched:
        """Map `slot` of table `number`, making the table if its parent's entry is clear."""
        if not 0 <= slot < ENTRIES_PER_TABLE:
            raise ValueError(f"slot {slot} of a table of {ENTRIES_PER_TABLE}")
        table = self.parent.get(number)
        if table is None:
            table = self.parent[number] = CountedTable(number, memcg)
            self.lists.setdefault(memcg, []).append(table)
        if table.phase is not Phase.LIVE:
            return Touched.RETRY
        if not zero:
            table.zero.discard(slot)
        elif slot not in table.entries:
            table.zero.add(slot)
        table.entries.add(slot)
        return Touched.SERVED

    def unmap(self, number: int, slot: int) -> None:
        """Unmap `slot` of table `number`, if it is mapped."""
        table = self.parent.get(number)
        if table is not None:
            table.entries.discard(slot)
            table.zero.discard(slot)

    def freeze(self, table: CountedTable) -> bool:
        """First step: whether `table` could be frozen, its count being zero."""
        if table.phase is not Phase.LIVE or table.references:
            return False
        table.phase = Phase.FROZEN
        return True

    def unlink(self, table: CountedTable) -> None:
        """Second step: clear the entry in the parent."""
        self._step(table, Phase.FROZEN, Phase.UNLINKED)
        del self.parent[table.number]

    def free(self, table: CountedTable) -> None:
        """Last step: off the list of its memory cgroup, and gone."""
        self._step(table, Phase.UNLINKED, Phase.FREED)
        self.lists[table.memcg].remove(table)
        self.freed.append(table)

    def pressure(
        self, memcg: int, most: int, rng: np.random.Generator
    ) -> tuple[list[CountedTable], list[CountedTable]]:
        """Walk the list of `memcg` at random until `most` were picked: those freed, and those in use.

        Empty tables and those with the zero page only are freed; the others would have to be migrated,
        compressed or swapped out by the caller.
        """
        if most < 0:
            raise ValueError(f"{most} tables are less than none")
        listed = list(self.lists.get(memcg, ()))
        gone, in_use = [], []
        for at in rng.permutation(len(listed))[:most]:
            table = listed[at]
            if self.freeze(table):
                self.unlink(table)
                self.free(table)
                gone.append(table)
            elif table.phase is Phase.LIVE:
                in_use.append(table)
        return gone, in_use

    @staticmethod
    def _step(table: CountedTable, before: Phase, after: Phase) -> None:
        if table.phase is not before:
            raise ValueError(f"a table that is {table.phase.value} cannot be {after.value} next")
        table.phase = after

"""Touches of last-level page tables over time, as dense ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from orchestrator.model.snapshot import I64, U8, U32, Bool

MAX_TABLES = 1 << 31  # 4 PiB of address space; ids are int32 in the kernels


class TouchKind(IntEnum):
    """What happens to a table."""

    UNMAPPED = 0  # everything in it is unmapped, as by madvise(MADV_DONTNEED) over its range
    READ_ZERO = 1  # a read of memory never written: the zero page goes in, unless something is there
    TOUCH = 2  # memory is mapped in it, or what is mapped is used


@dataclass(frozen=True)
class Trace:
    """`table[i]` (n,) is the table that event `kind[i]` (n,; a TouchKind) happens to; ids are 0..tables-1.

    Tables with ids that differ in the last nine bits only hang below one PMD table, as they do when an
    id is an address divided by 2 MiB. `name` and `assumption` say where it comes from. `owner` (tables,) is
    the number of the memory cgroup that each is charged to, None where all are of one.
    """

    name: str
    tables: int
    table: U32
    kind: U8
    assumption: str = ""
    owner: I64 | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def touches(self) -> int:
        """Events that need their table."""
        return int(np.count_nonzero(self.kind))

    @property
    def tables_used(self) -> int:
        """Tables that anything happens to."""
        used = np.zeros(self.tables, dtype=np.bool_)
        used[self.table] = True
        return int(np.count_nonzero(used))

    def faults(self) -> list[str]:
        """What is inconsistent in it, in words; the kernels do not check again."""
        found = []
        if not 0 < self.tables <= MAX_TABLES:
            found.append(f"{self.tables} tables: a trace has 1 to {MAX_TABLES}")
        if self.table.ndim != 1 or self.table.shape != self.kind.shape:
            found.append(f"{self.table.shape} tables for {self.kind.shape} kinds of events")
        if len(self.table) and int(self.table.max()) >= self.tables:
            found.append(f"an event of table {int(self.table.max())}, of {self.tables}")
        if len(self.kind) and int(self.kind.max()) > max(TouchKind):
            found.append(f"an event of kind {int(self.kind.max())}: there are {len(TouchKind)}")
        if self.owner is not None and (len(self.owner) != self.tables or np.any(self.owner < 0)):
            found.append(f"{len(self.owner)} owners of {self.tables} tables, or one with a number below 0")
        return found

    def seen(self) -> Bool:
        """Which tables are touched at all, shape (tables,)."""
        seen = np.zeros(self.tables, dtype=np.bool_)
        seen[self.table[self.kind > 0]] = True
        return seen

"""What a series of snapshots tells of touches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.snapshot import I16, I32, I64, U8, Bool
from orchestrator.model.tables import LAST_LEVEL, Tables, TableState
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import ENTRIES_PER_TABLE


class TouchBound(StrEnum):
    """How to read an accessed bit that was set before, too: it may have been set again, or be old."""

    CERTAIN = "certain"  # no touch, unless something in the table changed
    POSSIBLE = "possible"  # a touch


ASSUMPTION = (
    "a table is its frame and that of the table above, from snapshot to snapshot; one touch of it each time "
    "at the most, since an accessed bit says at least once since it was cleared, and not when"
)


@dataclass(frozen=True)
class SnapshotPair:
    """What happened to last-level tables of user space from one snapshot to the next.

    Of the first snapshot: since the guest began. `touched_at_least` tables were touched for certain:
    allocated, or with more entries or more accessed bits than before. `touched_at_most` counts as well those
    that only have accessed bits, which may be old. A touch whose bit the guest has cleared again is in
    neither: with reclaim or page idle tracking in the guest, more may have been touched.
    """

    tables: int  # that there are
    allocated: int
    touched_at_least: int
    touched_at_most: int
    unmapped: int


@dataclass(frozen=True)
class SnapshotTrace:
    """Touches of one trial. `idle` (shape: last-level user tables of the last snapshot that are not empty):
    for how many snapshots each has not been touched for certain; it cannot have been idle for longer."""

    trace: Trace
    pairs: tuple[SnapshotPair, ...]
    idle: I32


@dataclass(frozen=True)
class _Seen:
    """Last-level user tables of one snapshot; arrays of shape (tables,), by id without gaps."""

    key: I64
    root: I64  # frame of the topmost table above
    state: U8
    entries: I16
    accessed: I16


def read_series(
    name: str, snapshots: Sequence[Tables], reading: TouchBound = TouchBound.POSSIBLE
) -> SnapshotTrace:
    """Touches of user space's last-level tables as far as a series of snapshots tells them.

    A table that was not there before was allocated (a touch, or a read of the zero page); one that is empty
    or gone was unmapped. In between, `reading` decides. Within a pair the order of events is not known: it
    is that of frames. Tables below one PMD table have ids that differ in the last nine bits only. Each
    address space is taken for a memory cgroup of its own.
    Raises BadInputError when no snapshot has such a table.
    """
    seen, numbers = _with_keys(name, snapshots)
    known = len(numbers)
    there = np.zeros(known, dtype=np.bool_)  # at the snapshot before
    filled = np.zeros(known, dtype=np.bool_)  # and not empty
    entries, accessed = np.zeros(known, dtype=np.int16), np.zeros(known, dtype=np.int16)
    touched_at = np.zeros(known, dtype=np.int32)
    ids, kinds, pairs = [], [], []
    for now, one in enumerate(seen):
        at = one.key
        allocated = ~there[at]
        certain = allocated | (one.entries > entries[at]) | (one.accessed > accessed[at])
        possible = certain | (one.accessed > 0)
        touched = possible if reading is TouchBound.POSSIBLE else certain
        zero_only = one.state == TableState.ZERO_ONLY
        is_there = np.zeros(known, dtype=np.bool_)
        is_there[at] = True
        gone = np.flatnonzero(filled & ~is_there)
        emptied = at[(one.state == TableState.EMPTY) & (filled[at] | allocated)]
        for happened_to, event in (
            (gone, TouchKind.UNMAPPED),
            (at[touched & ~zero_only], TouchKind.TOUCH),
            (at[touched & zero_only], TouchKind.READ_ZERO),
            (emptied, TouchKind.UNMAPPED),
        ):
            ids.append(numbers[happened_to])
            kinds.append(np.full(len(happened_to), event, dtype=np.uint8))
        unmapped = len(gone) + len(emptied)
        pairs.append(
            SnapshotPair(len(at), int(allocated.sum()), int(certain.sum()), int(possible.sum()), unmapped)
        )
        there, filled = is_there, is_there.copy()
        filled[at[one.state == TableState.EMPTY]] = False
        entries[at], accessed[at] = one.entries, one.accessed
        touched_at[at[certain]] = now
    tables = (int(numbers.max()) | (ENTRIES_PER_TABLE - 1)) + 1
    root = np.zeros(tables, dtype=np.int64)
    for one in seen:
        root[numbers[one.key]] = one.root
    trace = Trace(
        name,
        tables,
        np.concatenate(ids).astype(np.uint32),
        np.concatenate(kinds),
        f"{ASSUMPTION} ({reading})",
        owner=np.unique(root, return_inverse=True)[1].reshape(-1),
    )
    return SnapshotTrace(trace, tuple(pairs), (len(seen) - 1 - touched_at[filled]).astype(np.int32))


def _with_keys(name: str, snapshots: Sequence[Tables]) -> tuple[list[_Seen], I64]:
    """The tables of each snapshot by key, 0 to n - 1; and the id in the trace of each key."""
    masks = [_user_leaves(tables) for tables in snapshots]
    frames = [
        np.column_stack((_parent_frame(tables)[mask], tables.pfn[mask]))
        for tables, mask in zip(snapshots, masks, strict=True)
    ]
    if not sum(map(len, frames)):
        raise BadInputError(f"{name}: no snapshot has last-level page tables of user space")
    # Another table above: the frame was freed, and another table allocated in it.
    pairs, key = np.unique(np.concatenate(frames), axis=0, return_inverse=True)
    _, first, size = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    # As many nine-bit groups for each parent as its tables need: more than 512 if they came and went.
    groups = -(-size // ENTRIES_PER_TABLE)
    begin = (np.cumsum(groups) - groups) * ENTRIES_PER_TABLE
    numbers: I64 = np.repeat(begin - first, size) + np.arange(len(pairs))
    parts = np.split(key.reshape(-1), np.cumsum([len(part) for part in frames])[:-1])
    seen = [
        _Seen(
            part,
            tables.pfn[tables.root][mask],
            tables.state[mask],
            tables.present[mask] + tables.other_nonzero[mask],
            tables.accessed[mask],
        )
        for part, tables, mask in zip(parts, snapshots, masks, strict=True)
    ]
    return seen, numbers


def _user_leaves(tables: Tables) -> Bool:
    # A deposited table becomes one of these when its huge page is split.
    deposited = tables.state == TableState.DEPOSITED
    leaves: Bool = (tables.level == LAST_LEVEL) & ~tables.kernel & ~deposited
    return leaves


def _parent_frame(tables: Tables) -> I64:
    """Frame of the table above each, -1 where none is known."""
    return np.where(tables.parent >= 0, tables.pfn[tables.parent], -1)

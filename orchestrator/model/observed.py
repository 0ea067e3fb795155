"""What a series of snapshots tells of touches; and how a small guest foretells a large one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.snapshot import I64, Bool
from orchestrator.model.tables import LAST_LEVEL, Tables, TableState
from orchestrator.model.trace import Event, Trace

ASSUMPTION = (
    "a table is its frame, as long as snapshot after snapshot shows a last-level user table there; "
    "accessed bits count as one touch a snapshot, and are old where nothing cleared them"
)


def trace_of_snapshots(name: str, snapshots: Sequence[Tables]) -> Trace:
    """Touches of user space's last-level tables as far as a series of snapshots tells them.

    At each snapshot: a table that was not there before was made (a touch, or a read of the zero page); one
    with accessed bits was touched; one that is empty or gone was let go of. Ids are dense, in the order of
    frames. Raises BadInputError when no snapshot has such a table.
    """
    kept = [(tables.pfn[mask], tables, mask) for tables in snapshots for mask in [_user_leaves(tables)]]
    frames: I64 = np.unique(np.concatenate([pfn for pfn, _, _ in kept])) if kept else np.empty(0, np.int64)
    if not len(frames):
        raise BadInputError(f"{name}: no snapshot has last-level page tables of user space")
    made = np.zeros(len(frames), dtype=np.bool_)  # there at the snapshot before
    filled = np.zeros(len(frames), dtype=np.bool_)  # and not empty
    ids, kinds = [], []
    for pfn, tables, mask in kept:
        at = np.searchsorted(frames, pfn)
        state = tables.state[mask]
        there = np.zeros(len(frames), dtype=np.bool_)
        there[at] = True
        touched = ~made[at] | (tables.accessed[mask] > 0)
        zero_only = state == TableState.ZERO_ONLY
        gone = np.flatnonzero(filled & ~there)
        emptied = at[(state == TableState.EMPTY) & (filled[at] | ~made[at])]
        for which, event in (
            (gone, Event.LET_GO),
            (at[touched & ~zero_only], Event.TOUCH),
            (at[touched & zero_only], Event.READ_ZERO),
            (emptied, Event.LET_GO),
        ):
            ids.append(which.astype(np.uint32))
            kinds.append(np.full(len(which), event, dtype=np.uint8))
        made = there
        filled = there.copy()
        filled[at[state == TableState.EMPTY]] = False
    return Trace(name, len(frames), np.concatenate(ids), np.concatenate(kinds), ASSUMPTION)


def _user_leaves(tables: Tables) -> Bool:
    leaves: Bool = (tables.level == LAST_LEVEL) & ~tables.kernel
    return leaves


def extrapolate(before: float, measured: float, factor: float) -> float:
    """Tables of a guest whose workload is `factor` times as large as a measured one.

    Assumes that what was there `before` the workload stays as it is and that what the workload added grows
    with its size. tests/unit/test_model_live.py checks it on guests of three sizes.
    """
    if not (factor > 0 and before >= 0 and measured >= before):
        raise BadInputError(
            f"{before:g} tables before, {measured:g} with the workload, times {factor:g}: "
            "they must ascend from 0, and the factor be above 0"
        )
    return before + (measured - before) * factor

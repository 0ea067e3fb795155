"""The talk's future work: the list in order of access frequency, least recent first among equals."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import NOBODY, Functions, Replacement
from orchestrator.model.trace import Trace

_MOST = 255  # where counting ends: old favourites are then told apart by age alone
_NONE = -1


@inlined
def _unlink(state: Any, table: int) -> None:
    count, links, ends, _ = state
    before, after = links[table, 0], links[table, 1]
    bucket = count[table]
    if before == _NONE:
        ends[bucket, 0] = after
    else:
        links[before, 1] = after
    if after == _NONE:
        ends[bucket, 1] = before
    else:
        links[after, 0] = before


@inlined
def _append(state: Any, table: int, bucket: int) -> None:
    count, links, ends, _ = state
    count[table] = bucket
    last = ends[bucket, 1]
    links[table, 0] = last
    links[table, 1] = _NONE
    ends[bucket, 1] = table
    if last == _NONE:
        ends[bucket, 0] = table
    else:
        links[last, 1] = table


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    _unlink(state, table)
    _append(state, table, min(int(state[0][table]) + 1, _MOST))


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    _append(state, table, 0)
    state[3][0] = 0


@inlined
def _victim(state: Any, now: int) -> int:
    ends, least = state[2], state[3]
    for bucket in range(least[0], _MOST + 1):
        table = ends[bucket, 0]
        if table != _NONE:
            least[0] = bucket
            _unlink(state, table)
            return int(table)
    return NOBODY


class Frequency(Replacement, name="frequency"):
    """Takes the table with fewest touches since it came (counted to 255), the longest untouched first."""

    functions = Functions(_touched, _admitted, _victim, _unlink)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # no chance in it
        return (
            np.zeros(trace.tables, dtype=np.uint8),
            np.full((trace.tables, 2), _NONE, dtype=np.int32),
            np.full((_MOST + 1, 2), _NONE, dtype=np.int32),
            np.zeros(1, dtype=np.int64),
        )

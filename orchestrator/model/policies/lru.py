"""Least recently used. The trace itself is the list: what was last touched longest ago stands first in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import NOBODY, Functions, Replacement
from orchestrator.model.trace import Trace

_NEVER = -1


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    state[1][table] = now


@inlined
def _victim(state: Any, now: int) -> int:
    trace, last, oldest = state
    for at in range(oldest[0], now):
        table = trace[at]
        if last[table] == at:
            last[table] = _NEVER
            oldest[0] = at + 1
            return int(table)
    oldest[0] = now
    return NOBODY


@inlined
def _forgotten(state: Any, table: int) -> None:
    state[1][table] = _NEVER


class Lru(Replacement, name="lru"):
    """Takes the table whose last touch is longest ago."""

    functions = Functions(_touched, _touched, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # no chance in it
        # Each event is passed once by the hand at `oldest`, so that a victim costs O(1) over a trace.
        dtype = np.int32 if len(trace) < 2**31 else np.int64
        return trace.table, np.full(trace.tables, _NEVER, dtype=dtype), np.zeros(1, dtype=np.int64)

"""Least recently used. The trace itself is the list: what was last touched longest ago stands first in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import NO_VICTIM
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions, OverTrace, OverTree
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool
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
    return NO_VICTIM


@inlined
def _forgotten(state: Any, table: int) -> None:
    state[1][table] = _NEVER


class Lru(OverTrace, OverTree, name="lru"):
    """Takes the table whose last touch is longest ago.

    Over a tree, where an accessed bit is all that tells: those of which nothing was accessed, and those that
    map the zero page only.
    """

    functions = Functions(_touched, _touched, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        # Each event is passed once by the hand at `oldest`, so that a victim costs O(1) over a trace.
        dtype = np.int32 if len(trace) < 2**31 else np.int64
        return trace.table, np.full(trace.tables, _NEVER, dtype=dtype), np.zeros(1, dtype=np.int64)

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Last-level tables of which nothing was accessed, and those of the zero page."""
        found: Bool = tree.last_level & ((tree.accessed == 0) | (tree.mapped == tree.zero_page))
        return found

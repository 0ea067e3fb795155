"""Free what maps nothing but zeros: reading untouched memory fills tables with the zero page.

Such entries are not counted by the talk's reference count: they hold nothing that could be lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import leave, new_queue, pop, push
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import (
    Choice,
    Functions,
    OverSnapshot,
    OverTrace,
    OverTree,
    WithTables,
    first,
    freeable,
)
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool
from orchestrator.model.tables import TableState
from orchestrator.model.trace import TouchKind, Trace

_READ_ZERO, _TOUCH = int(TouchKind.READ_ZERO), int(TouchKind.TOUCH)


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    if state[1][now] == _TOUCH:
        leave(state[0], table)


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    if state[1][now] == _READ_ZERO:
        push(state[0], table)


@inlined
def _victim(state: Any, now: int) -> int:
    return pop(state[0])


@inlined
def _forgotten(state: Any, table: int) -> None:
    leave(state[0], table)


class ZeroPage(OverSnapshot, OverTrace, OverTree, name="zero_page"):
    """Frees last-level tables that are empty or map the zero page only; evicts none in use.

    Over a trace, those that are empty at once, and the others under pressure.
    """

    evicts_in_use = False
    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        freed = first(freeable(state.tables, TableState.ZERO_ONLY), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        # Every table may wait: what is in use is not evicted, so that the budget is no bound.
        return (new_queue(trace.tables, trace.tables), trace.kind)

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Last-level tables that map nothing, or the zero page only."""
        found: Bool = tree.last_level & (tree.mapped == tree.zero_page)
        return found

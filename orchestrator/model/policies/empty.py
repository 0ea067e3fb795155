"""Free what maps nothing: PT_RECLAIM (6375e95f381e, 6.14), at all times.

As a reference count of a table's entries does: what unmaps the last one freezes the table, clears the
entry in the PMD table above, and frees it. A touch that meets a frozen table comes again (`freeze_touches`
of a replay counts that); tests/unit/mechanism.py has the steps one by one, and tries their orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import TAKES_NONE
from orchestrator.model.policies.base import (
    Choice,
    Frees,
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
from orchestrator.model.trace import Trace


class Empty(OverSnapshot, OverTrace, OverTree, name="empty"):
    """Frees last-level tables without any entry."""

    frees = Frees.EMPTY
    evicts_in_use = False
    functions = TAKES_NONE

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        freed = first(freeable(state.tables, TableState.EMPTY), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return (0,)

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Last-level tables that map nothing."""
        found: Bool = tree.last_level & (tree.mapped == 0)
        return found

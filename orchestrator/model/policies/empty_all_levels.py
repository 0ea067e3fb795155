"""Free what maps nothing, upper levels as well: one PMD table left in a block keeps all of it."""

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
)
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool
from orchestrator.model.tables import LAST_LEVEL, TOP_LEVEL, TableState
from orchestrator.model.trace import Trace


class EmptyAllLevels(OverSnapshot, OverTrace, OverTree, name="empty_all_levels"):
    """Frees tables without any entry, of all levels, and those that only pointed at them."""

    frees = Frees.ALL_LEVELS
    evicts_in_use = False
    functions = TAKES_NONE

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        left = tables.present.astype(np.int64) + tables.other_nonzero  # entries that are not zero
        freed = np.zeros(len(tables), dtype=np.bool_)
        # A root stays: nothing above it could be cleared, and it goes with its process.
        candidates = ~tables.kernel & (tables.parent >= 0) & (tables.state != TableState.DEPOSITED)
        for level in range(LAST_LEVEL, TOP_LEVEL):
            budget_left = None if budget_tables is None else budget_tables - int(freed.sum())
            going = first(candidates & (tables.level == level) & (left == 0), budget_left)
            freed |= going
            np.subtract.at(left, tables.parent[going], 1)
        return Choice(freed, to_move=np.zeros_like(freed))

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return (0,)

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Tables that map nothing, of all levels, and those that then lead nowhere."""
        gone: Bool = tree.linked & ~tree.in_use
        return gone

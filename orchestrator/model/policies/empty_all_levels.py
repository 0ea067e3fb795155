"""Free what maps nothing, upper levels as well: one PMD table left in a block keeps all of it."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, first
from orchestrator.model.tables import LAST_LEVEL, TOP_LEVEL, TableState


class EmptyAllLevels(Policy, name="empty_all_levels"):
    """Frees tables without any entry, of all levels, and those that only pointed at them."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # no chance in it
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

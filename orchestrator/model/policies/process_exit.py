"""What ending a process would do, as the bound of what reclaim can do for it, and to check the model by."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, first
from orchestrator.model.tables import TOP_LEVEL


class ProcessExit(Policy, name="process_exit"):
    """Frees every table of the process that has most of them, as its end would."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # no chance in it
        tables = state.tables
        root = np.arange(len(tables), dtype=np.int64)
        for _ in range(TOP_LEVEL - 1):
            above = tables.parent[root]
            root = np.where(above >= 0, above, root)
        user = ~tables.kernel
        if not user.any():
            return Choice(freed=user, to_move=user)
        most = int(np.bincount(root[user], minlength=len(tables)).argmax())
        freed = first(user & (root == most), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

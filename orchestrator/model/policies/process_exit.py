"""What ending a process would do, as the bound of what reclaim can do for it, and to check the model by."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, OverSnapshot, WithTables, first


class ProcessExit(OverSnapshot, name="process_exit"):
    """Frees every table of the process that has most of them, as its end would."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        user = ~tables.kernel
        if not user.any():
            return Choice(freed=user, to_move=user)
        most = int(np.bincount(tables.root[user], minlength=len(tables)).argmax())
        freed = first(user & (tables.root == most), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

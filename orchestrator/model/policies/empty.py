"""Free what maps nothing, as a reference count of entries that reaches zero would."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, first, freeable
from orchestrator.model.tables import TableState


class Empty(Policy, name="empty"):
    """Frees last-level tables without any entry."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # no chance in it
        freed = first(freeable(state.tables, TableState.EMPTY), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

"""Free what maps nothing but zeros: reading untouched memory fills tables with the zero page."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, first, freeable
from orchestrator.model.tables import TableState


class ZeroPage(Policy, name="zero_page"):
    """Frees last-level tables that are empty or map the zero page only."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # no chance in it
        freed = first(freeable(state.tables, TableState.ZERO_ONLY), budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))

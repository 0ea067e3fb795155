"""Keep every table, and put it where it is in nobody's way."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, first


class Migrate(Policy, name="migrate"):
    """Would move user tables of every level that something points at to another place; frees none."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # no chance in it
        tables = state.tables
        # Without a known parent there is no entry to redirect; a PGD stands in CR3 besides.
        moved = first(~tables.kernel & (tables.parent >= 0), budget_tables)
        return Choice(freed=np.zeros_like(moved), to_move=moved)

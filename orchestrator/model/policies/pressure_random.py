"""Under memory pressure, walk a list of page tables in random order until enough were picked."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables, freeable
from orchestrator.model.tables import TableState


class PressureRandom(Policy, name="pressure_random"):
    """Picks user tables at random; frees unused last-level ones, would have to move the others."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        # On the list is what is charged to a memory cgroup (GFP_PGTABLE_USER), at any level. Without a
        # known parent there is no entry to clear or redirect: that leaves out PGDs, and PUD tables where
        # the kernel does not mark the level above.
        listed = np.flatnonzero(~tables.kernel & (tables.parent >= 0))
        picked = np.zeros(len(tables), dtype=np.bool_)
        picked[rng.permutation(listed)[:budget_tables]] = True
        freed = picked & freeable(tables, TableState.ZERO_ONLY)
        return Choice(freed, to_move=picked & ~freed)

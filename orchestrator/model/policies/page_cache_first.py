"""The talk's future work: under pressure, what a fault finds in the page cache again goes first."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, OverSnapshot, WithTables, freeable
from orchestrator.model.policies.page_cache import maps_files_only
from orchestrator.model.policies.pressure_random import walk_lists
from orchestrator.model.tables import TableState


class PageCacheFirst(OverSnapshot, name="page_cache_first"):
    """Picks user tables at random, those of files only first; frees these, would have to move the others."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        # The same lists as those of pressure_random, each in two parts.
        cheap = freeable(tables, TableState.VALID) & maps_files_only(tables)
        order = walk_lists(tables, rng)
        order = order[np.argsort(~cheap[order], kind="stable")]
        picked = np.zeros(len(tables), dtype=np.bool_)
        picked[order[:budget_tables]] = True
        return Choice(picked & cheap, to_move=picked & ~cheap)

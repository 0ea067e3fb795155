"""Free what maps files: the pages stay in the page cache, so a fault maps them again without any I/O."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, OverSnapshot, WithTables, first, freeable
from orchestrator.model.snapshot import Bool
from orchestrator.model.tables import Tables, TableState


class PageCache(OverSnapshot, name="page_cache"):
    """Frees last-level tables that map nothing but page cache and the zero page, and empty ones.

    One such fault maps up to 16 neighbours (do_fault_around(), mm/memory.c); nothing is copied or written.
    """

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        candidates = freeable(state.tables, TableState.VALID) & maps_files_only(state.tables)
        freed = first(candidates, budget_tables)
        return Choice(freed, to_move=np.zeros_like(freed))


def maps_files_only(tables: Tables) -> Bool:
    """Which tables map nothing but page cache and the zero page, or nothing at all."""
    mapped: Bool = (tables.page_cache + tables.zero_page == tables.present) & (tables.other_nonzero == 0)
    return mapped

"""Keep every table, and put it where it pins nothing: another node, or another part of this one."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, OverSnapshot, WithTables, movable
from orchestrator.model.snapshot import I64, Bool
from orchestrator.units import ENTRIES_PER_TABLE

# A pageblock, by which the kernel compacts: pageblock_order is HUGETLB_PAGE_ORDER on x86-64.
_BLOCK_PAGES = ENTRIES_PER_TABLE


class Migrate(OverSnapshot, name="migrate"):
    """Would move user tables of every level that something points at to another place; frees none.

    With a bound, it empties as many pageblocks as it can, and begins none that it cannot empty. It is assumed
    that there is room at the other place: a snapshot does not say on which node a frame is. Overcommit and
    replays count the room (`--other-node`).
    """

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        moved = movable(tables)
        if budget_tables is not None:
            stays = np.setdiff1d(state.unmovable, tables.pfn[moved])
            candidates = np.flatnonzero(moved)
            moved = np.zeros_like(moved)
            moved[candidates[compaction_victims(tables.pfn[candidates], stays, budget_tables)]] = True
        return Choice(freed=np.zeros_like(moved), to_move=moved)


def compaction_victims(pfn: I64, held_otherwise: I64, most: int, block_pages: int = _BLOCK_PAGES) -> Bool:
    """Mask over the tables at `pfn`: those to move so that most blocks of `block_pages` frames come free.

    `held_otherwise` are frames that cannot be moved. Blocks with fewest tables come first; no block is begun
    that `most` tables do not suffice for.
    """
    block = pfn // block_pages
    hopeful = ~np.isin(block, held_otherwise // block_pages)
    blocks, inverse, count = np.unique(block[hopeful], return_inverse=True, return_counts=True)
    order = np.argsort(count, kind="stable")
    chosen = np.zeros(len(blocks), dtype=np.bool_)
    chosen[order[np.cumsum(count[order]) <= most]] = True
    victims = np.zeros(len(pfn), dtype=np.bool_)
    victims[hopeful] = chosen[inverse]
    return victims

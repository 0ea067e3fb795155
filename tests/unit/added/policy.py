"""Free every other table."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import TAKES_NONE
from orchestrator.model.policies.base import Choice, OverSnapshot, OverTrace, OverTree, WithTables
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool
from orchestrator.model.trace import Trace


class EveryOther(OverSnapshot, OverTrace, OverTree, name="added"):
    """Frees every other table."""

    takes_in_use = False
    functions = TAKES_NONE

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        freed = np.arange(len(state.tables)) % 2 == 0
        return Choice(freed, to_move=np.zeros_like(freed))

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return (0,)

    def zaps(self, tree: SecondLevelTree) -> Bool:
        zapped: Bool = np.arange(len(tree.pfn)) % 2 == 0
        return zapped

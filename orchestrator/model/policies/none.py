"""What happens when nothing is done: the line that others are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import TAKES_NONE
from orchestrator.model.policies.base import Choice, Frees, OverSnapshot, OverTrace, WithTables
from orchestrator.model.trace import Trace


class DoNothing(OverSnapshot, OverTrace, name="none"):
    """Keeps every table, the empty ones as well."""

    frees = Frees.NOTHING
    evicts_in_use = False
    functions = TAKES_NONE

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        nothing = np.zeros(len(state.tables), dtype=np.bool_)
        return Choice(freed=nothing, to_move=nothing)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return (0,)

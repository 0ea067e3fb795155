"""What happens when nothing is done: the line that others are compared with."""

from __future__ import annotations

import numpy as np

from orchestrator.model.policies.base import Choice, Policy, WithTables


class DoNothing(Policy, name="none"):
    """Frees nothing."""

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:  # noqa: ARG002  # takes no heed
        nothing = np.zeros(len(state.tables), dtype=np.bool_)
        return Choice(freed=nothing, to_move=nothing)

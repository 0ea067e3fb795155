"""What happens when nothing is done: the line that others are compared with."""

from __future__ import annotations

from typing import Any

from orchestrator.model.replacement.base import Frees, Functions, Replacement, ignore, ignore_gone, nobody
from orchestrator.model.trace import Trace


class DoNothing(Replacement, name="none"):
    """Keeps every table, the empty ones as well."""

    frees = Frees.NOTHING
    takes_in_use = False
    functions = Functions(ignore, ignore, nobody, ignore_gone)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # keeps no state
        return (0,)

"""A reference count in upper tables as well: one PMD table left in a block keeps all of it."""

from __future__ import annotations

from typing import Any

from orchestrator.model.replacement.base import Frees, Functions, Replacement, ignore, ignore_gone, nobody
from orchestrator.model.trace import Trace


class EmptyAllLevels(Replacement, name="empty_all_levels"):
    """Frees a table of any level when its last entry goes; takes none in use."""

    frees = Frees.ALL_LEVELS
    takes_in_use = False
    functions = Functions(ignore, ignore, nobody, ignore_gone)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # keeps no state
        return (0,)

"""What a reference count of entries does, and no more: PT_RECLAIM (6375e95f381e, 6.14), at all times."""

from __future__ import annotations

from typing import Any

from orchestrator.model.replacement.base import Frees, Functions, Replacement, ignore, ignore_gone, nobody
from orchestrator.model.trace import Trace


class Empty(Replacement, name="empty"):
    """Frees a last-level table when its last entry goes; takes none in use, whatever the budget."""

    frees = Frees.EMPTY
    takes_in_use = False
    functions = Functions(ignore, ignore, nobody, ignore_gone)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # keeps no state
        return (0,)

"""The list as the talk has it, without a second look: who came first goes first."""

from __future__ import annotations

from typing import Any

from orchestrator.model.compiled import ignore, leave, new_queue, pop, push
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions, OverTrace
from orchestrator.model.trace import Trace


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    push(state, table)


@inlined
def _victim(state: Any, now: int) -> int:
    return pop(state)


class Fifo(OverTrace, name="fifo"):
    """Takes the table that came first."""

    functions = Functions(ignore, _admitted, _victim, leave)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return new_queue(trace.tables, budget_tables)

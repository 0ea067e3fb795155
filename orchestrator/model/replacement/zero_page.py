"""Tables that map nothing but zeros hold nothing that could be lost."""

from __future__ import annotations

from typing import Any

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import Functions, Replacement, leave, new_queue, pop, push
from orchestrator.model.trace import Event, Trace

_READ_ZERO, _TOUCH = int(Event.READ_ZERO), int(Event.TOUCH)


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    if state[1][now] == _TOUCH:
        leave(state[0], table)


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    if state[1][now] == _READ_ZERO:
        push(state[0], table)


@inlined
def _victim(state: Any, now: int) -> int:
    return pop(state[0])


@inlined
def _forgotten(state: Any, table: int) -> None:
    leave(state[0], table)


class ZeroPage(Replacement, name="zero_page"):
    """Frees empty tables and, under pressure, those that map the zero page only; takes none in use."""

    takes_in_use = False
    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # no chance in it
        # Every table may wait: what is in use is not taken, so that the budget is no bound.
        return (new_queue(trace.tables, trace.tables), trace.kind)

"""Second chance: the hand clears accessed bits until it meets one that is clear already."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import NO_VICTIM, leave, new_queue, pop, push
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions, OverTrace
from orchestrator.model.trace import Trace


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    state[1][table] = 1


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    state[1][table] = 0
    push(state[0], table)


@inlined
def _victim(state: Any, now: int) -> int:
    while True:
        table = pop(state[0])
        if table == NO_VICTIM or state[1][table] == 0:
            return table
        state[1][table] = 0
        push(state[0], table)


@inlined
def _forgotten(state: Any, table: int) -> None:
    leave(state[0], table)


class Clock(OverTrace, name="clock"):
    """Takes the table that came first, unless it was accessed since: that one goes to the end.

    One bit, clear when a table comes, set by each later touch: libcachesim's `Clock` with its defaults
    (init_freq 0, n_bit_counter 1), and CLOCK with one hand.
    """

    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        return (new_queue(trace.tables, budget_tables), np.zeros(trace.tables, dtype=np.uint8))

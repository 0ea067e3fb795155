"""The talk's reclaim under pressure: walk the list of a memory cgroup, and take whom chance picks."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import (
    NOBODY,
    Functions,
    Replacement,
    ignore,
    random_below,
    random_state,
)
from orchestrator.model.trace import Trace


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    listed, place, count, _ = state
    listed[count[0]] = table
    place[table] = count[0]
    count[0] += 1


@inlined
def _forgotten(state: Any, table: int) -> None:
    listed, place, count, _ = state
    count[0] -= 1
    last = listed[count[0]]
    listed[place[table]] = last
    place[last] = place[table]


@inlined
def _victim(state: Any, now: int) -> int:
    if state[2][0] == 0:
        return NOBODY
    table = int(state[0][random_below(state[3], state[2][0])])
    _forgotten(state, table)
    return table


class PressureRandom(Replacement, name="pressure_random"):
    """Takes any table, each as likely as the others."""

    functions = Functions(ignore, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        listed = np.zeros(min(trace.tables, budget_tables) + 1, dtype=np.int32)
        return listed, np.zeros(trace.tables, dtype=np.int32), np.zeros(1, dtype=np.int64), random_state(seed)

"""Multi-generational, after Linux's MGLRU (mm/vmscan.c): accessed bits are read in walks, not at touches."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import NOBODY, Functions, Replacement
from orchestrator.model.trace import Trace

_MAX_GENERATIONS = 4  # MAX_NR_GENS, include/linux/mmzone.h
_MIN_GENERATIONS = 2  # MIN_NR_GENS: with fewer than these and one more, the next walk is due
_NONE = -1

# In `facts`: number of the oldest and the youngest generation, victims since the last walk, and how many
# there have to be before the next one.
_OLDEST, _YOUNGEST, _SINCE, _PACE = 0, 1, 2, 3


@inlined
def _unlink(state: Any, table: int) -> None:
    _, home, links, ends, _ = state
    before, after = links[table, 0], links[table, 1]
    if before == _NONE:
        ends[home[table], 0] = after
    else:
        links[before, 1] = after
    if after == _NONE:
        ends[home[table], 1] = before
    else:
        links[after, 0] = before
    home[table] = _NONE


@inlined
def _append(state: Any, table: int, generation: int) -> None:
    _, home, links, ends, _ = state
    slot = generation % _MAX_GENERATIONS
    home[table] = slot
    last = ends[slot, 1]
    links[table, 0] = last
    links[table, 1] = _NONE
    ends[slot, 1] = table
    if last == _NONE:
        ends[slot, 0] = table
    else:
        links[last, 1] = table


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    state[0][table] = 1


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    state[0][table] = 0
    _append(state, table, state[4][_YOUNGEST])


@inlined
def _walk(state: Any) -> None:
    """Open a generation and put into it what was accessed since the last walk (inc_max_seq(), walk_mm())."""
    accessed, _, links, ends, facts = state
    facts[_YOUNGEST] += 1
    facts[_SINCE] = 0
    for generation in range(facts[_OLDEST], facts[_YOUNGEST]):
        table = ends[generation % _MAX_GENERATIONS, 0]
        while table != _NONE:
            after = links[table, 1]
            if accessed[table] != 0:
                accessed[table] = 0
                _unlink(state, table)
                _append(state, table, facts[_YOUNGEST])
            table = after


@inlined
def _victim(state: Any, now: int) -> int:
    accessed, _, _, ends, facts = state
    facts[_SINCE] += 1
    while True:
        few = facts[_YOUNGEST] - facts[_OLDEST] + 1 <= _MIN_GENERATIONS
        if few and facts[_SINCE] > facts[_PACE]:
            _walk(state)
        table = ends[facts[_OLDEST] % _MAX_GENERATIONS, 0]
        if table != _NONE:
            _unlink(state, table)
            if accessed[table] == 0:
                return int(table)
            # Met with its bit set, it is young again (sort_folio(), folio_inc_gen()).
            accessed[table] = 0
            _append(state, table, facts[_YOUNGEST])
        elif facts[_OLDEST] < facts[_YOUNGEST]:
            facts[_OLDEST] += 1
        else:
            return NOBODY


class Generations(Replacement, name="generations"):
    """Takes from the oldest of up to four generations; a walk moves what was accessed to the youngest.

    A walk is due when only two generations are left, at most once for every eighth of the budget that is
    taken, so that it costs a bounded number of steps a victim.
    """

    functions = Functions(_touched, _admitted, _victim, _unlink)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:  # noqa: ARG002  # no chance in it
        pace = min(budget_tables, trace.tables) // 8
        return (
            np.zeros(trace.tables, dtype=np.uint8),
            np.full(trace.tables, _NONE, dtype=np.int8),
            np.full((trace.tables, 2), _NONE, dtype=np.int32),
            np.full((_MAX_GENERATIONS, 2), _NONE, dtype=np.int32),
            np.array([0, 1, 0, pace], dtype=np.int64),
        )

"""The talk's reclaim under pressure: walk the lists of memory cgroups, and take whom chance picks.

User tables are charged to a memory cgroup (GFP_PGTABLE_USER), and wait on its list. Pressure visits the
memory cgroups in turn (mem_cgroup_iter(), mm/memcontrol.c) and takes of each list in proportion to its
length, as get_scan_count() in mm/vmscan.c does; within a list, chance picks. Whose a table is, is assumed:

- in a snapshot, and in a trace that was read from some: that each address space is a memory cgroup of its
  own, since page tables do not say which processes share one;
- in a trace that was made up: that all tables are of one, which is one list;
- in overcommit: that each guest is one. Its tables stand on one list for all guests: where the host is short,
  to pick any of them is to pick of each guest in proportion to the length of its list, on average.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from orchestrator.model.compiled import NO_VICTIM, ignore, random_below, random_state
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import (
    Choice,
    Functions,
    OverSnapshot,
    OverTrace,
    WithTables,
    freeable,
    movable,
)
from orchestrator.model.snapshot import I64
from orchestrator.model.tables import Tables, TableState
from orchestrator.model.trace import Trace

# A visit takes an eighth of a list, and one more: all lists shrink alike, and no short one is passed by.
_VISIT_SHIFT: Final = 3


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
        return NO_VICTIM
    table = int(state[0][random_below(state[3], state[2][0])])
    _forgotten(state, table)
    return table


# The same for several lists: that of owner i is listed[begin[i]] and following, count[i] of them.
_VISITED, _LEFT = 0, 1  # whose turn it is, and how many more are evicted of it


@inlined
def _admitted_of(state: Any, table: int, now: int) -> None:
    listed, place, owner, begin, count, _, _ = state
    of = owner[table]
    listed[begin[of] + count[of]] = table
    place[table] = begin[of] + count[of]
    count[of] += 1


@inlined
def _forgotten_of(state: Any, table: int) -> None:
    listed, place, owner, begin, count, _, _ = state
    of = owner[table]
    count[of] -= 1
    last = listed[begin[of] + count[of]]
    listed[place[table]] = last
    place[last] = place[table]


@inlined
def _victim_of(state: Any, now: int) -> int:
    listed, begin, count, turn, chance = state[0], state[3], state[4], state[5], state[6]
    for _ in range(len(count) + 1):
        of = turn[_VISITED]
        if turn[_LEFT] > 0 and count[of] > 0:
            turn[_LEFT] -= 1
            table = int(listed[begin[of] + random_below(chance, count[of])])
            _forgotten_of(state, table)
            return table
        of = (of + 1) % len(count)
        turn[_VISITED] = of
        turn[_LEFT] = (count[of] >> _VISIT_SHIFT) + 1
    return NO_VICTIM


_OF_OWNERS: Final = Functions(ignore, _admitted_of, _victim_of, _forgotten_of)


class PressureRandom(OverSnapshot, OverTrace, name="pressure_random"):
    """Picks tables of each memory cgroup at random; those in use would have to be moved, the others go."""

    functions = Functions(ignore, _admitted, _victim, _forgotten)

    def choose(self, state: WithTables, rng: np.random.Generator, budget_tables: int | None) -> Choice:
        tables = state.tables
        picked = np.zeros(len(tables), dtype=np.bool_)
        picked[walk_lists(tables, rng)[:budget_tables]] = True
        freed = picked & freeable(tables, TableState.ZERO_ONLY)
        return Choice(freed, to_move=picked & ~freed)

    def functions_over(self, trace: Trace) -> Functions:
        return self.functions if trace.owner is None else _OF_OWNERS

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        place, chance = np.zeros(trace.tables, dtype=np.int32), random_state(seed)
        if trace.owner is None:
            listed = np.zeros(min(trace.tables, budget_tables) + 1, dtype=np.int32)
            return listed, place, np.zeros(1, dtype=np.int64), chance
        tables_of = np.bincount(trace.owner)
        begin = np.cumsum(tables_of) - tables_of
        turn = np.zeros(2, dtype=np.int64)
        return np.zeros_like(place), place, trace.owner, begin, np.zeros_like(begin), turn, chance


def walk_lists(tables: Tables, rng: np.random.Generator) -> I64:
    """Tables on the lists, in the order in which pressure takes them: of each list the same share, to
    half a table."""
    listed = rng.permutation(np.flatnonzero(movable(tables)))
    _, owner, length = np.unique(tables.root[listed], return_inverse=True, return_counts=True)
    by_owner = np.argsort(owner, kind="stable")
    rank = np.empty(len(listed), dtype=np.int64)
    rank[by_owner] = np.arange(len(listed)) - np.repeat(np.cumsum(length) - length, length)
    order: I64 = listed[np.argsort((rank + 0.5) / length[owner], kind="stable")]
    return order

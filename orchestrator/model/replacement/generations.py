"""Multi-generational, after Linux's MGLRU (mm/vmscan.c): accessed bits are read in walks, not at touches."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.replacement.base import (
    NOBODY,
    Functions,
    Replacement,
    append_node,
    first_node,
    new_nodes,
    next_node,
    unlink_node,
)
from orchestrator.model.trace import Trace

_MAX_GENERATIONS = 4  # MAX_NR_GENS, include/linux/mmzone.h
_MIN_GENERATIONS = 2  # MIN_NR_GENS: with fewer than these and one more, the next walk is due
_ACCESSED = 2  # a node's third word

# Words of the last row: number of the oldest and the youngest generation, victims since the last walk, and
# how many there have to be before the next one.
_OLDEST, _YOUNGEST, _SINCE, _PACE = range(4)


@inlined
def _list_of(nodes: Any, generation: int) -> int:
    return len(nodes) - 1 - _MAX_GENERATIONS + generation % _MAX_GENERATIONS


@inlined
def _touched(nodes: Any, table: int, now: int) -> None:
    nodes[table, _ACCESSED] = 1


@inlined
def _admitted(nodes: Any, table: int, now: int) -> None:
    nodes[table, _ACCESSED] = 0
    append_node(nodes, _list_of(nodes, nodes[len(nodes) - 1, _YOUNGEST]), table)


@inlined
def _walk(nodes: Any) -> None:
    """Open a generation and put into it what was accessed since the last walk (inc_max_seq(), walk_mm())."""
    facts = len(nodes) - 1
    nodes[facts, _YOUNGEST] += 1
    nodes[facts, _SINCE] = 0
    young = _list_of(nodes, nodes[facts, _YOUNGEST])
    for generation in range(nodes[facts, _OLDEST], nodes[facts, _YOUNGEST]):
        head = _list_of(nodes, generation)
        table = first_node(nodes, head)
        while table != head:
            after = next_node(nodes, table)
            if nodes[table, _ACCESSED] != 0:
                nodes[table, _ACCESSED] = 0
                unlink_node(nodes, table)
                append_node(nodes, young, table)
            table = after


@inlined
def _victim(nodes: Any, now: int) -> int:
    facts = len(nodes) - 1
    nodes[facts, _SINCE] += 1
    while True:
        few = nodes[facts, _YOUNGEST] - nodes[facts, _OLDEST] + 1 <= _MIN_GENERATIONS
        if few and nodes[facts, _SINCE] > nodes[facts, _PACE]:
            _walk(nodes)
        head = _list_of(nodes, nodes[facts, _OLDEST])
        table = first_node(nodes, head)
        if table != head:
            unlink_node(nodes, table)
            if nodes[table, _ACCESSED] == 0:
                return int(table)
            # Met with its bit set, it is young again (sort_folio(), folio_inc_gen()).
            nodes[table, _ACCESSED] = 0
            append_node(nodes, _list_of(nodes, nodes[facts, _YOUNGEST]), table)
        elif nodes[facts, _OLDEST] < nodes[facts, _YOUNGEST]:
            nodes[facts, _OLDEST] += 1
        else:
            return NOBODY


@inlined
def _forgotten(nodes: Any, table: int) -> None:
    unlink_node(nodes, table)


class Generations(Replacement, name="generations"):
    """Takes from the oldest of up to four generations; a walk moves what was accessed to the youngest.

    A walk is due when only two generations are left, at most once for every eighth of the budget that is
    taken, so that it costs a bounded number of steps a victim.
    """

    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> Any:  # noqa: ARG002  # no chance in it
        nodes = new_nodes(trace.tables, _MAX_GENERATIONS)
        nodes[-1] = np.array([0, 1, 0, min(budget_tables, trace.tables) // 8])
        return nodes

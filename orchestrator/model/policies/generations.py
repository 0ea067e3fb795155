"""Multi-generational, after Linux's MGLRU: accessed bits are read in walks, not at touches.

What is named here is in mm/vmscan.c, as of 798c0330c2ca (6.14), which made the number of generations alone
decide when a walk is due.
"""

from __future__ import annotations

from typing import Any

from orchestrator.model.compiled import NO_VICTIM, append_node, first_node, new_nodes, next_node, unlink_node
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions, OverTrace
from orchestrator.model.trace import Trace

# include/linux/mmzone.h: MIN_NR_GENS are not evicted from, so that a walk looks at each accessed bit twice
# before a table is evicted: once for the touch that made it, once for what came then.
_MIN_GENERATIONS = 2
_MAX_GENERATIONS = 4  # MAX_NR_GENS
_ACCESSED = 2  # a node's third word
_OLDEST, _YOUNGEST = range(2)  # words of the last row: min_seq and max_seq


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
    drained = 0
    while drained <= _MAX_GENERATIONS:
        # should_run_aging(): better to walk while eviction is still possible, that is, one generation early.
        if nodes[facts, _OLDEST] + _MIN_GENERATIONS >= nodes[facts, _YOUNGEST]:
            _walk(nodes)
        head = _list_of(nodes, nodes[facts, _OLDEST])
        table = first_node(nodes, head)
        if table != head:
            unlink_node(nodes, table)
            if nodes[table, _ACCESSED] == 0:
                return int(table)
            # Met with its bit set, it is young again (folio_check_references()).
            nodes[table, _ACCESSED] = 0
            append_node(nodes, _list_of(nodes, nodes[facts, _YOUNGEST]), table)
        else:
            nodes[facts, _OLDEST] += 1  # try_to_inc_min_seq()
            drained += 1
    return NO_VICTIM


@inlined
def _forgotten(nodes: Any, table: int) -> None:
    unlink_node(nodes, table)


class Generations(OverTrace, name="generations"):
    """Takes from the oldest of four generations; a walk moves what was accessed to the youngest.

    Generations are emptied from the oldest on, and a walk opens a new one when three are left. What comes
    joins the youngest, as a page that faulted in did until 6.13. A walk looks at every table. Each of them
    was touched or came since the walk three before, or is evicted or unmapped by the walk three after: walks
    cost a bounded number of steps an event.
    """

    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> Any:
        nodes = new_nodes(trace.tables, _MAX_GENERATIONS)
        nodes[-1, _YOUNGEST] = _MAX_GENERATIONS - 1  # lru_gen_init_lruvec()
        return nodes

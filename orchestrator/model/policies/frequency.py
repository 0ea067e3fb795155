"""The talk's future work: the list in order of access frequency, least recent first among equals."""

from __future__ import annotations

from typing import Any

from orchestrator.model.compiled import NO_VICTIM, append_node, first_node, new_nodes, unlink_node
from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions, OverTrace
from orchestrator.model.trace import Trace

_MOST = 255  # where counting ends: the most used are then distinguished by age only
_LISTS = _MOST + 1  # one for each number of touches
_COUNT = 2  # a node's third word; that of the last row is the least count that anybody has


@inlined
def _touched(nodes: Any, table: int, now: int) -> None:
    unlink_node(nodes, table)
    count = min(nodes[table, _COUNT] + 1, _MOST)
    nodes[table, _COUNT] = count
    append_node(nodes, len(nodes) - _LISTS - 1 + count, table)


@inlined
def _admitted(nodes: Any, table: int, now: int) -> None:
    nodes[table, _COUNT] = 0
    append_node(nodes, len(nodes) - _LISTS - 1, table)
    nodes[len(nodes) - 1, _COUNT] = 0


@inlined
def _victim(nodes: Any, now: int) -> int:
    lists = len(nodes) - _LISTS - 1
    for count in range(nodes[len(nodes) - 1, _COUNT], _LISTS):
        table = first_node(nodes, lists + count)
        if table < lists:
            nodes[len(nodes) - 1, _COUNT] = count
            unlink_node(nodes, table)
            return int(table)
    return NO_VICTIM


@inlined
def _forgotten(nodes: Any, table: int) -> None:
    unlink_node(nodes, table)


class Frequency(OverTrace, name="frequency"):
    """Takes the table with fewest touches since it came (counted to 255), the longest untouched first."""

    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> Any:
        return new_nodes(trace.tables, _LISTS)

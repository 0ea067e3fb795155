"""What policies over a trace are made of: queues, linked lists and chance, compiled into their callers."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.jit import inlined
from orchestrator.model.policies.base import Functions
from orchestrator.model.snapshot import U64

NO_VICTIM = -1  # a victim that there is not


@inlined
def ignore(state: Any, table: int, now: int) -> None:
    """Takes no notice of a table that is touched or comes."""


@inlined
def ignore_forgotten(state: Any, table: int) -> None:
    """Takes no notice of a table that goes by itself."""


@inlined
def no_victim(state: Any, now: int) -> int:
    """Leaves every table where it is."""
    return NO_VICTIM


# Of a policy that evicts none in use, whatever the budget; it keeps no state.
TAKES_NONE = Functions(ignore, ignore, no_victim, ignore_forgotten)


# A queue of tables in the order of their coming: a ring of ids and, by table, the place of its entry in
# the ring. An entry whose table has its place elsewhere is stale; a full ring sheds its stale ones.
Queue = tuple[Any, Any, Any]
_HEAD, _TAIL = 0, 1
_OUT = -1


def new_queue(tables: int, budget_tables: int) -> Queue:
    """An empty queue for `tables` tables, of which about `budget_tables` wait at once."""
    wait = min(tables, max(budget_tables, 1)) + 1
    ring = np.zeros(1 << (2 * wait - 1).bit_length(), dtype=np.int32)
    place = np.full(tables, _OUT, dtype=np.int32)
    return ring, place, np.zeros(2, dtype=np.int64)


@inlined
def push(queue: Any, table: int) -> None:
    """Put `table` at the end; it must not wait already."""
    ring, place, ends = queue
    mask = len(ring) - 1
    if ends[_HEAD] - ends[_TAIL] > mask:
        kept = ends[_TAIL]
        for at in range(ends[_TAIL], ends[_HEAD]):
            waiting = ring[at & mask]
            if place[waiting] == (at & mask):
                ring[kept & mask] = waiting
                place[waiting] = kept & mask
                kept += 1
        ends[_HEAD] = kept
    at = ends[_HEAD] & mask
    ring[at] = table
    place[table] = at
    ends[_HEAD] += 1


@inlined
def pop(queue: Any) -> int:
    """Take the first one, or NO_VICTIM."""
    ring, place, ends = queue
    mask = len(ring) - 1
    while ends[_TAIL] < ends[_HEAD]:
        at = ends[_TAIL] & mask
        ends[_TAIL] += 1
        table = ring[at]
        if place[table] == at:
            place[table] = _OUT
            return int(table)
    return NO_VICTIM


@inlined
def leave(queue: Any, table: int) -> None:
    """Take `table` out, wherever it waits, if it does."""
    queue[1][table] = _OUT


# Lists of tables, linked both ways: a row of four words for each table, for the head of each list, and one
# for the policy. Words 0 and 1 are the rows before and after, 2 and 3 the policy's own. A list is a ring
# through its head, so that taking a table out has no branch; one array, since numba counts references to
# every array that it takes out of a tuple, atomically, and those cost more than what is done here.
_BEFORE, _AFTER = 0, 1


def new_nodes(tables: int, lists: int) -> Any:
    """Rows for `tables` tables and `lists` empty lists, whose heads are rows `tables` and following."""
    nodes = np.zeros((tables + lists + 1, 4), dtype=np.int32)
    heads = np.arange(tables, tables + lists)
    nodes[heads, _BEFORE] = nodes[heads, _AFTER] = heads
    return nodes


@inlined
def append_node(nodes: Any, head: int, table: int) -> None:
    """Put `table` at the end of the list at `head`; it must be in none."""
    last = nodes[head, _BEFORE]
    nodes[table, _BEFORE] = last
    nodes[table, _AFTER] = head
    nodes[last, _AFTER] = table
    nodes[head, _BEFORE] = table


@inlined
def unlink_node(nodes: Any, table: int) -> None:
    """Take `table` out of the list that it is in."""
    before, after = nodes[table, _BEFORE], nodes[table, _AFTER]
    nodes[before, _AFTER] = after
    nodes[after, _BEFORE] = before


@inlined
def next_node(nodes: Any, table: int) -> Any:
    """The table behind `table`, or the head of the list that it ends."""
    return nodes[table, _AFTER]


@inlined
def first_node(nodes: Any, head: int) -> Any:
    """The first table of the list at `head`, or `head` where it is empty."""
    return nodes[head, _AFTER]


def random_state(seed: int) -> U64:
    """State of a xorshift64* generator (Vigna 2016); never zero."""
    return np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)


@inlined
def random_below(state: Any, bound: int) -> int:
    """A number from 0 to `bound` - 1. Takes the upper 32 bits times `bound`: even to one part in 2**32."""
    word = state[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    state[0] = word
    high = (word * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32)
    return int((high * np.uint64(bound)) >> np.uint64(32))

"""The bound: no policy that has to admit what is touched has fewer misses (Belady 1966, Mattson 1970)."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.model.compiled import NO_VICTIM
from orchestrator.model.jit import inlined, njit
from orchestrator.model.policies.base import Functions, OverTrace
from orchestrator.model.snapshot import I64, U8, U32
from orchestrator.model.trace import TouchKind, Trace

_WORD_BITS = 6
_UNMAPPED = int(TouchKind.UNMAPPED)
_LEVELS = 6  # 64**6 keys


@njit
def _next_uses(table: U32, kind: U8, tables: int) -> I64:
    """For each event, a key that grows with the time until the table is touched again.

    The index of that touch; where there is none, or all is unmapped before, the number of events plus the
    index of this one: beyond all others, and unique.
    """
    events = len(table)
    key = np.empty(events, dtype=np.int64)
    upcoming = np.full(tables, -1, dtype=np.int64)
    for at in range(events - 1, -1, -1):
        coming = upcoming[table[at]]
        key[at] = coming if coming >= 0 else events + at
        upcoming[table[at]] = -1 if kind[at] == _UNMAPPED else at
    return key


@inlined
def _add(words: Any, start: Any, key: int) -> None:
    for level in range(_LEVELS):
        at = start[level] + (key >> _WORD_BITS)
        before = words[at]
        words[at] = before | (np.uint64(1) << np.uint64(key & 63))
        if before != 0:
            return
        key >>= _WORD_BITS


@inlined
def _drop(words: Any, start: Any, key: int) -> None:
    for level in range(_LEVELS):
        at = start[level] + (key >> _WORD_BITS)
        words[at] &= ~(np.uint64(1) << np.uint64(key & 63))
        if words[at] != 0:
            return
        key >>= _WORD_BITS


@inlined
def _highest_bit(word: Any) -> int:
    bit = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> np.uint64(step):
            word >>= np.uint64(step)
            bit += step
    return bit


@inlined
def _highest(words: Any, start: Any) -> int:
    key = 0
    for level in range(_LEVELS - 1, -1, -1):
        word = words[start[level] + key]
        if word == 0:
            return NO_VICTIM
        key = (key << _WORD_BITS) | _highest_bit(word)
    return key


@inlined
def _touched(state: Any, table: int, now: int) -> None:
    upcoming, held, words, start, _ = state
    _drop(words, start, held[table])
    held[table] = upcoming[now]
    _add(words, start, held[table])


@inlined
def _admitted(state: Any, table: int, now: int) -> None:
    upcoming, held, words, start, _ = state
    held[table] = upcoming[now]
    _add(words, start, held[table])


@inlined
def _victim(state: Any, now: int) -> int:
    upcoming, _, words, start, trace = state
    key = _highest(words, start)
    if key == NO_VICTIM:
        return NO_VICTIM
    _drop(words, start, key)
    events = len(upcoming)
    return int(trace[key if key < events else key - events])


@inlined
def _forgotten(state: Any, table: int) -> None:
    _drop(state[2], state[3], state[1][table])


class Belady(OverTrace, name="belady"):
    """Knows the future: takes the table that is touched again last, or never. A bound, not a policy."""

    functions = Functions(_touched, _admitted, _victim, _forgotten)

    def state(self, trace: Trace, budget_tables: int, seed: int) -> tuple[Any, ...]:
        # The keys of the tables that are there stand in a bitmap, and above it bitmaps of its words that
        # are not zero, so that the greatest key is found in as many steps as there are levels.
        sizes, bits = [], 2 * len(trace) + 1
        for _ in range(_LEVELS):
            bits = (bits >> _WORD_BITS) + 1
            sizes.append(bits)
        start = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        words = np.zeros(sum(sizes), dtype=np.uint64)
        held = np.zeros(trace.tables, dtype=np.int64)
        return _next_uses(trace.table, trace.kind, trace.tables), held, words, start, trace.table

"""Replays a trace of touches against a budget of tables: a policy says whom to take, an action how.

One compiled loop over dense ids. The budget is of last-level tables in the memory that is short; the
PMD tables above them are counted, not budgeted.

Of each table two things are known. Its *place*: never made, here, gone, on another node, compressed or
swapped. And its *content*: what memory its range maps, a TouchKind. Touches set the content, wherever the
table is; a policy and its action change the place only. So a dropped table keeps its content (the memory
below is still mapped by its owner, and faults find it again) until that memory is unmapped, and a range of
which everything is unmapped is empty, whether its table was there at the time or not.
tests/unit/reference_replay.py says the same in plain Python.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.compiled import NO_VICTIM
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.jit import inlined, njit
from orchestrator.model.policies import Frees, OverTrace
from orchestrator.model.snapshot import I64, U8, U32
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import PAGE_BYTES


class EvictionAction(StrEnum):
    """What becomes of a table with valid entries that a policy takes."""

    DROP = "drop"  # second level: faults build it again from the host's own tables
    MIGRATE = "migrate"  # to another node; touches reach it there
    COMPRESS = "compress"
    SWAP = "swap"


# Where a table is (low bits), and what is in it (above).
_NEVER, _HERE, _GONE, _REMOTE, _COMPRESSED, _SWAPPED = range(6)
_PLACE_MASK: Final = 7
_CONTENT_SHIFT: Final = 3  # the last TouchKind that counts: LET_GO stands for empty
_GOES_TO: Final = {
    EvictionAction.DROP: _GONE,
    EvictionAction.MIGRATE: _REMOTE,
    EvictionAction.COMPRESS: _COMPRESSED,
    EvictionAction.SWAP: _SWAPPED,
}
# numba takes plain integers only.
_UNMAPPED, _TOUCH = int(TouchKind.UNMAPPED), int(TouchKind.TOUCH)
_NOTHING = int(Frees.NOTHING)
_CHILD_SHIFT: Final = 9  # 512 tables hang below one PMD table

# What is counted; of a touch that does not meet its table here, by where the table was.
_COUNTERS: Final = (
    *("cold_misses", "", "rebuilt", "remote_hits", "decompressed", "swapped_in"),
    *("freed", "evicted", "retries", "upper_freed", "upper_tables", "not_moved"),
    *("peak_tables", "end_tables", "over_budget"),
)
_FREED, _EVICTED, _RETRIES, _UPPER_FREED, _UPPER, _NOT_MOVED, _PEAK, _END, _OVER = range(6, 15)


def replay(
    trace: Trace,
    policy: str,
    budget_bytes: int,
    *,
    action: EvictionAction = EvictionAction.DROP,
    seed: int = 0,
    freeze_touches: int = 0,
    other_nodes_bytes: int | None = None,
) -> ReplayCounts:
    """What `policy` does to `trace` when its last-level tables have `budget_bytes`.

    `freeze_touches`: for how many events a table that is being evicted stays frozen; the first touch in that
    time is counted as a retry and then served, which ends it. `other_nodes_bytes`: room for tables that are
    migrated, on all other nodes together (None: no bound); when it is full, tables stay where they are, over
    the budget.
    The same arguments give the same counts.
    Raises BadInputError for a policy that answers nothing over a trace, a budget below one table, or a trace
    that is no trace.
    """
    if budget_bytes < PAGE_BYTES:
        raise BadInputError(f"a budget of {budget_bytes} bytes holds no table: {PAGE_BYTES} or more would")
    if freeze_touches < 0:
        raise BadInputError(f"tables cannot be frozen for {freeze_touches} touches: 0 or more would be right")
    if other_nodes_bytes is not None and other_nodes_bytes < 0:
        raise BadInputError(f"room of {other_nodes_bytes} bytes on other nodes: 0 or more would be right")
    if faults := trace.faults():
        raise BadInputError(f"trace {trace.name}: {faults[0]}")
    chosen = OverTrace.named(policy)
    budget_tables = budget_bytes // PAGE_BYTES
    room = trace.tables
    if action is EvictionAction.MIGRATE and other_nodes_bytes is not None and chosen.evicts_in_use:
        room = min(room, other_nodes_bytes // PAGE_BYTES)
    all_levels = chosen.frees is Frees.ALL_LEVELS
    functions = chosen.functions_over(trace)
    counts = np.zeros(len(_COUNTERS), dtype=np.int64)
    _replay(
        trace.table,
        trace.kind,
        trace.tables,
        budget_tables,
        _GOES_TO[action],
        int(chosen.frees),
        np.zeros((trace.tables >> _CHILD_SHIFT) + 1, dtype=np.int32) if all_levels else None,
        np.full(trace.tables, -freeze_touches - 1, dtype=np.int64) if freeze_touches else None,
        freeze_touches,
        room,
        # Where taking may fail, all tables may be there at once.
        chosen.state(trace, budget_tables if room == trace.tables else trace.tables, seed),
        functions.touched,
        functions.admitted,
        functions.victim,
        functions.forgotten,
        counts,
    )
    found = {name: value for name, value in zip(_COUNTERS, counts.tolist(), strict=True) if name}
    by_action = {
        EvictionAction.DROP: "dropped",
        EvictionAction.MIGRATE: "migrated",
        EvictionAction.COMPRESS: "compressed",
        EvictionAction.SWAP: "swapped_out",
    }
    found[by_action[action]] = found.pop("evicted")
    one = ReplayCounts(touches=trace.touches, **found)
    return replace(one, hits=one.touches - one.misses)


@inlined
def _unhang(counts: Any, below: Any, upper_there: Any, table: int) -> None:
    """Take `table` from below its PMD table, and free that when nothing is left there."""
    upper = table >> _CHILD_SHIFT
    below[upper] -= 1
    if below[upper] == 0:
        upper_there[upper] = 0
        counts[_UPPER_FREED] += 1
        counts[_UPPER] -= 1


@njit
def _replay(  # noqa: C901, PLR0912, PLR0915, PLR0917  # one loop, whose calls numba compiles in
    table: U32,
    kind: U8,
    tables: int,
    budget: int,
    goes_to: int,
    frees: int,
    below: Any,
    taken_at: Any,
    freeze: int,
    room: int,
    state: Any,
    touched: Any,
    admitted: Any,
    victim: Any,
    forgotten: Any,
    counts: I64,
) -> None:
    # What a replay does without is None, and numba compiles it out: on the way of a miss, it is the branches
    # and stores that take time, not memory (docs/model.md, Speed).
    place = np.zeros(tables, dtype=np.uint8)
    upper_there = np.zeros((tables >> _CHILD_SHIFT) + 1, dtype=np.uint8)
    here = away = peak = over = evicted = 0
    plain = _HERE | (_TOUCH << _CONTENT_SHIFT)
    gone_to = goes_to | (_TOUCH << _CONTENT_SHIFT)
    for now in range(len(table)):
        which, what = int(table[now]), int(kind[now])
        found = int(place[which])
        if found == plain and what != _UNMAPPED:
            touched(state, which, now)
            continue
        where, content = found & _PLACE_MASK, found >> _CONTENT_SHIFT
        if what == _UNMAPPED:
            if where in (_NEVER, _GONE):
                place[which] = where  # there is no table to free, but its range is empty from now on
                continue
            # What was compressed or swapped goes with its entries, under any policy.
            if frees != _NOTHING or where in (_COMPRESSED, _SWAPPED):
                if where == _HERE:
                    forgotten(state, which)
                    here -= 1
                elif where == _REMOTE:
                    away -= 1
                if where in (_HERE, _REMOTE):
                    counts[_FREED] += 1
                place[which] = _GONE
                if below is not None:
                    _unhang(counts, below, upper_there, which)
            else:
                place[which] = where
            continue
        holds = max(content, what)
        if where == _HERE:
            place[which] = _HERE | (holds << _CONTENT_SHIFT)
            touched(state, which, now)
            continue
        counts[where] += 1
        if taken_at is not None:
            counts[_RETRIES] += now - taken_at[which] <= freeze
            taken_at[which] = -freeze - 1  # served in the end, so that nothing is frozen any more
        if where == _REMOTE:
            place[which] = _REMOTE | (holds << _CONTENT_SHIFT)
            continue
        # It has to come.
        if below is not None:
            below[which >> _CHILD_SHIFT] += where in (_NEVER, _GONE)
        # A PMD table is made with the first table below it; only where they are freed, again.
        if where == _NEVER or (below is not None and where == _GONE):
            upper = which >> _CHILD_SHIFT
            counts[_UPPER] += upper_there[upper] == 0
            upper_there[upper] = 1
        if here >= budget:
            gone = NO_VICTIM
            if away < room:
                gone = victim(state, now)
            else:
                counts[_NOT_MOVED] += 1
            if gone != NO_VICTIM:
                here -= 1
                if place[gone] >> _CONTENT_SHIFT == _TOUCH:
                    evicted += 1
                    place[gone] = gone_to
                    away += goes_to == _REMOTE
                else:  # nothing but the zero page is in it: it is freed, whatever the action
                    counts[_FREED] += 1
                    place[gone] = _GONE
                if below is not None and place[gone] & _PLACE_MASK == _GONE:
                    _unhang(counts, below, upper_there, gone)
                if taken_at is not None:
                    taken_at[gone] = now
        here += 1
        over += here > budget
        peak = max(peak, here)
        place[which] = _HERE | (holds << _CONTENT_SHIFT)
        admitted(state, which, now)
    counts[_EVICTED], counts[_PEAK], counts[_END], counts[_OVER] = evicted, peak, here, over

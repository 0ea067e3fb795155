"""Page tables of many guests under memory pressure: a policy's own functions say which one goes.

Like a replay (orchestrator.model.replay), with three differences: a table weighs as many bytes as the real
ones that it stands for, what tables may take changes as other memory grows, and guests end. Whenever too much
is held, the policy is asked for a victim. What is in the victim decides what becomes of it: nothing, or the
zero page only, and it is freed; otherwise the action moves it, if there is room where it goes.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from orchestrator.model.compiled import NO_VICTIM
from orchestrator.model.counts import ReplayCounts
from orchestrator.model.jit import inlined, njit
from orchestrator.model.policies import Frees, OverTrace
from orchestrator.model.replay import EvictionAction
from orchestrator.model.snapshot import I64, U8, U32, Bool
from orchestrator.model.trace import TouchKind, Trace

F64 = NDArray[np.float64]

# However hard the pressure, this share of the tables with data is not moved: below, every walk would fault.
LEAST_KEPT: Final = 0.1
# Sums of bytes are of floats: less than this is no excess.
SLACK_BYTES: Final = 0.5

# Where a table is. Zapped: freed while it mapped the zero page, which its guest may read again.
_ABSENT, _HERE, _MOVED, _ZAPPED = range(4)
# numba takes plain integers only.
_UNMAPPED, _TOUCH = int(TouchKind.UNMAPPED), int(TouchKind.TOUCH)
# Sums, in bytes, of tables that are here, moved, zapped, in use wherever they are, and of these with data.
_HELD, _AWAY, _LACKING, _USED, _DATA = range(5)
_TOUCHES, _COLD, _BACK, _REBUILT, _FREED, _EVICTED = range(6)
COUNTERS: Final = 6


@dataclass(frozen=True)
class SampledTables:
    """Tables of all guests and what happens to them, tick by tick, as long as no guest is killed.

    Events of tick t are `first[t]` (ticks + 1,) and following in `trace`: those before `touches[t]` (ticks,)
    let tables go, the others touch. Table i is of guest `owner[i]`, and stands for `weight[i]` bytes.
    """

    trace: Trace
    first: I64
    touches: I64
    owner: I64
    weight: F64


@dataclass(frozen=True)
class Reclaim:
    """Which policy says what is evicted, and what becomes of that."""

    policy: OverTrace
    action: EvictionAction
    kept_with_data: float  # share of its size that a moved table still takes here, compressed
    room_bytes: float  # for tables that are moved


class Pressure:
    """The tables of a host, as they are after the ticks that were played so far."""

    def __init__(self, tables: SampledTables, reclaim: Reclaim, seed: int) -> None:
        self._tables = tables
        self._reclaim = reclaim
        size = tables.trace.tables
        self._place = np.full(size, _ABSENT, dtype=np.uint8)
        self._content = np.full(size, _UNMAPPED, dtype=np.uint8)
        self._sums = np.zeros(5, dtype=np.float64)
        self._heaviest = float(tables.weight.max(initial=0))
        # All tables may be here at once.
        self._state = reclaim.policy.state(tables.trace, size, seed)

    @property
    def held_bytes(self) -> float:
        """Memory that tables take here, with what moved ones leave behind."""
        return float(self._sums[_HELD] + self._reclaim.kept_with_data * self._sums[_AWAY])

    @property
    def kept_share(self) -> float:
        """Of the tables that guests use, those that are here: 1 where none was evicted."""
        gone, used = float(self._sums[_AWAY] + self._sums[_LACKING]), float(self._sums[_USED])
        return 1 - gone / used if gone > SLACK_BYTES else 1.0

    def step(self, tick: int, budget_bytes: float, alive: Bool) -> I64:
        """Play a tick for the guests that are `alive` (guests,), when tables may take `budget_bytes`.

        More is held afterwards only if the policy names nothing that can go. Returns what was counted
        (COUNTERS,), for `named`.
        """
        tables = self._tables
        span = (int(tables.first[tick]), int(tables.touches[tick]), int(tables.first[tick + 1]))
        frees = self._reclaim.policy.frees is not Frees.NOTHING
        return self._play(tables.trace.table, tables.trace.kind, span, budget_bytes, alive, frees=frees)

    def end(self, guest: int, tick: int, budget_bytes: float, alive: Bool) -> I64:
        """After `tick` a guest is killed: its tables go, under any policy, and others if that does not do."""
        tables = self._tables
        own = np.flatnonzero(tables.owner == guest).astype(np.uint32)
        everything = np.full(len(own), _UNMAPPED, dtype=np.uint8)
        span = (0, len(own), len(own))
        now = int(tables.first[tick + 1])
        return self._play(own, everything, span, budget_bytes, alive, frees=True, now=now)

    def _play(
        self,
        table: U32,
        kind: U8,
        span: tuple[int, int, int],
        budget_bytes: float,
        alive: Bool,
        *,
        frees: bool,
        now: int | None = None,
    ) -> I64:
        functions = self._reclaim.policy.functions_over(self._tables.trace)
        counts = np.zeros(COUNTERS, dtype=np.int64)
        arrays = (self._place, self._content, self._tables.weight, self._sums)
        limits = np.array(
            [
                budget_bytes + SLACK_BYTES,
                self._reclaim.kept_with_data,
                self._reclaim.room_bytes - self._heaviest,
                1 - LEAST_KEPT,
                self._heaviest,
            ]
        )
        before, middle, after = span
        _step(
            table,
            kind,
            before,
            middle,
            after,
            middle if now is None else now,
            self._tables.owner,
            alive,
            frees,
            self._reclaim.action is EvictionAction.MIGRATE,
            limits,
            arrays,
            self._state,
            functions.touched,
            functions.admitted,
            functions.victim,
            functions.forgotten,
            counts,
        )
        if self.held_bytes > limits[0]:
            # Nothing in use can be moved any more, but what of the rest can be freed still goes. The policy
            # says which, by a copy of its state: whatever stays keeps its place in the policy's order.
            copy, end = deepcopy(self._state), after if now is None else now
            gone = _freeable(end, limits, arrays, copy, functions.victim)
            for one in gone.tolist():
                functions.forgotten(self._state, one)
            counts[_FREED] += len(gone)
        return counts


def named(counts: I64, action: EvictionAction) -> ReplayCounts:
    """What `step` counted (COUNTERS,), by name. What freeing without pressure took is not among it."""
    touches, cold, back, rebuilt, freed, evicted = (int(one) for one in counts)
    came = {
        EvictionAction.DROP: ReplayCounts(dropped=evicted, rebuilt=rebuilt + back),
        EvictionAction.MIGRATE: ReplayCounts(migrated=evicted, rebuilt=rebuilt, remote_hits=back),
        EvictionAction.COMPRESS: ReplayCounts(compressed=evicted, rebuilt=rebuilt, decompressed=back),
        EvictionAction.SWAP: ReplayCounts(swapped_out=evicted, rebuilt=rebuilt, swapped_in=back),
    }[action]
    one = replace(came, touches=touches, cold_misses=cold, freed=freed)
    return replace(one, hits=one.touches - one.misses)


_BUDGET, _LEFT, _ROOM, _MOST, _HEAVIEST = range(5)


@inlined
def _free(which: int, arrays: Any) -> None:
    place, content, weight, sums = arrays
    sums[_HELD] -= weight[which]
    if content[which] == _UNMAPPED:
        place[which] = _ABSENT
    else:
        place[which] = _ZAPPED
        sums[_LACKING] += weight[which]


@njit  # not inlined: it stands in two places, and compiling takes longer than calling
def _relieve(  # noqa: PLR0917  # numba has no keyword-only arguments
    now: int, limits: Any, arrays: Any, state: Any, victim: Any, counts: Any
) -> None:
    """Take what the policy names until no more is held than may be, or nothing can go."""
    place, content, weight, sums = arrays
    while sums[_HELD] + limits[_LEFT] * sums[_AWAY] > limits[_BUDGET]:
        # Without room for one in use none is asked for: it could not be put back in its place.
        most = min(limits[_ROOM], limits[_MOST] * sums[_DATA] - limits[_HEAVIEST])
        if sums[_AWAY] > most:
            return
        gone = victim(state, now)
        if gone == NO_VICTIM:
            return
        if content[gone] == _TOUCH:
            counts[_EVICTED] += 1
            place[gone] = _MOVED
            sums[_HELD] -= weight[gone]
            sums[_AWAY] += weight[gone]
        else:
            counts[_FREED] += 1
            _free(gone, arrays)


@njit
def _freeable(now: int, limits: Any, arrays: Any, state: Any, victim: Any) -> I64:
    """Free what can be freed in the order in which the policy names it; returns which. Uses up `state`."""
    _, content, _, sums = arrays
    found = np.empty(len(content), dtype=np.int64)
    number = 0
    while sums[_HELD] + limits[_LEFT] * sums[_AWAY] > limits[_BUDGET]:
        gone = victim(state, now)
        if gone == NO_VICTIM:
            break
        if content[gone] != _TOUCH:
            _free(gone, arrays)
            found[number] = gone
            number += 1
    return found[:number]


@njit
def _step(  # noqa: C901, PLR0912, PLR0917  # one loop, whose calls numba compiles in
    table: U32,
    kind: U8,
    before: int,
    middle: int,
    after: int,
    now: int,
    owner: I64,
    alive: Bool,
    frees: bool,  # noqa: FBT001  # numba has no keyword-only arguments
    stays: bool,  # noqa: FBT001  # a moved table that is touched
    limits: F64,
    arrays: Any,
    state: Any,
    touched: Any,
    admitted: Any,
    victim: Any,
    forgotten: Any,
    counts: I64,
) -> None:
    place, content, weight, sums = arrays
    for at in range(before, middle):
        which = int(table[at])
        where = place[which]
        if where == _ABSENT:
            continue
        if content[which] != _UNMAPPED:
            sums[_USED] -= weight[which]
            sums[_DATA] -= weight[which] * (content[which] == _TOUCH)
        content[which] = _UNMAPPED
        if where == _MOVED:  # it goes with its entries, under any policy
            sums[_AWAY] -= weight[which]
            place[which] = _ABSENT
        elif where == _ZAPPED:
            sums[_LACKING] -= weight[which]
            place[which] = _ABSENT
        elif frees:
            forgotten(state, which)
            sums[_HELD] -= weight[which]
            place[which] = _ABSENT
    _relieve(now, limits, arrays, state, victim, counts)
    for at in range(middle, after):
        which = int(table[at])
        if not alive[owner[which]]:
            continue
        counts[_TOUCHES] += 1
        where, weighs = place[which], weight[which]
        if content[which] == _UNMAPPED:
            sums[_USED] += weighs
        sums[_DATA] += weighs * (kind[at] == _TOUCH and content[which] != _TOUCH)
        content[which] = max(content[which], kind[at])
        if where == _HERE:
            touched(state, which, at)
            continue
        if where == _MOVED:
            counts[_BACK] += 1
            if stays:
                continue
            sums[_AWAY] -= weighs
        elif where == _ZAPPED:
            counts[_REBUILT] += 1
            sums[_LACKING] -= weighs
        else:
            counts[_COLD] += 1
        # It has to come, and may take the place of another, but not of itself.
        place[which] = _HERE
        sums[_HELD] += weighs
        _relieve(at, limits, arrays, state, victim, counts)
        admitted(state, which, at)

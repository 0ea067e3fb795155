"""Watching a size until it is where it was asked to be, or moves no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.actions.context import StepContext
from orchestrator.actions.curve import Curve
from orchestrator.deadline import Deadline
from orchestrator.records.step import Point, StepOutcome, StepResult

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class SettleTimeouts:
    """How long to look at a size that is to move, in seconds."""

    timeout: float
    """At the most."""
    unchanged_for: float = math.inf
    """Without a change, until it counts as settled."""
    watch: float = 0.0
    """On and on after that, for what comes late."""


@dataclass(frozen=True)
class Settled:
    """How a size came to rest. Bytes, positive in the direction that was asked for.

    `acknowledged_ns` is the first change seen (None: it never moved), `settled_ns` the last one
    (None: it never moved, or moved still), `later` what came after that while it was watched (None: it
    was not), `curve` all of it.
    """

    outcome: StepOutcome
    requested: int
    achieved: int
    before: int
    after: int
    acknowledged_ns: int | None
    settled_ns: int | None
    later: int | None
    curve: list[Point]

    @property
    def values(self) -> dict[str, float]:
        """What is recorded of it."""
        later = {} if self.later is None else {"later_bytes": self.later}
        return {
            "requested_bytes": self.requested,
            "achieved_bytes": self.achieved,
            "shortfall_bytes": self.requested - self.achieved,
            "size_before_bytes": self.before,
            "size_after_bytes": self.after,
            **later,
        }


class _ChangeWatcher:
    """Looks at a size, and remembers when it moved by at least `grain` bytes."""

    def __init__(self, trial: StepContext, read: Callable[[], int], before: int, grain: int) -> None:
        self._trial, self._read, self._grain = trial, read, grain
        self.size = before
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.moves: list[tuple[int, int]] = []

    def moved(self) -> bool:
        """Look; whether it is elsewhere than at the last look."""
        now = self._read()
        if abs(now - self.size) < self._grain:
            return False
        self.size, self.last_ns = now, self._trial.now_ns()
        self.first_ns = self.last_ns if self.first_ns is None else self.first_ns
        self.moves.append((self.last_ns, now))
        return True


def settle(
    trial: StepContext,
    read: Callable[[], int],
    wanted: int,
    *,
    before: int,
    sign: int,
    requested_ns: int,
    patience: SettleTimeouts,
    wait: Callable[[float], object],
    grain: int = 1,
    estimated: bool = False,
    answered: Callable[[], bool] = lambda: False,
) -> Settled:
    """Poll `read` until it says `wanted`, or nothing else for a while, or the time is over.

    `before` is what it said before the request at `requested_ns`: the guest may have moved by the
    first look. `sign` is -1 where a smaller size is what was asked for. What differs by less than
    `grain` bytes is the same. `answered` may tell that no more is to be expected. Where `wanted` is
    `estimated`, reaching it is no end: more may come.

    "Settled" is not "for ever": virtio-mem tries again after 50 s and then ever more seldom
    (drivers/virtio/virtio_mem.c, VIRTIO_MEM_RETRY_TIMER_MIN_MS); `patience.watch` goes on looking.
    """
    eye = _ChangeWatcher(trial, read, before, grain)
    direction = 1 if wanted >= before else -1

    def reached() -> bool:
        return (wanted - eye.size) * direction < grain

    def arrived() -> bool:
        return reached() and not estimated

    def pause(deadline: Deadline) -> None:
        wait(min(POLL_SECONDS, deadline.remaining))
        trial.check()

    deadline, quiet = Deadline(patience.timeout), Deadline(patience.unchanged_for)
    while True:
        if eye.moved():
            quiet = Deadline(patience.unchanged_for)
        if arrived() or answered() or quiet.expired or deadline.expired:
            break
        pause(deadline)
    outcome = _outcome(
        reached=reached(),
        over=answered() or quiet.expired,
        came=(eye.size - before) * direction > 0,
    )
    if outcome is StepOutcome.DONE and eye.first_ns is None:  # it was there already
        eye.first_ns = eye.last_ns = trial.now_ns()
    after, acknowledged_ns, changed_ns = eye.size, eye.first_ns, eye.last_ns
    watch = Deadline(patience.watch)
    while not (arrived() or watch.expired):
        pause(watch)
        eye.moved()
    curve = Curve(requested_ns)
    for t_ns, size in eye.moves:
        curve.add(t_ns, sign * (size - before))
    return Settled(
        outcome=outcome,
        requested=sign * (wanted - before),
        achieved=sign * (after - before),
        before=before,
        after=after,
        acknowledged_ns=acknowledged_ns,
        settled_ns=None if outcome is StepOutcome.TIMEOUT else changed_ns,
        later=sign * (eye.size - after) if patience.watch else None,
        curve=curve.points,
    )


def _outcome(*, reached: bool, over: bool, came: bool) -> StepOutcome:
    if reached:
        return StepOutcome.DONE
    if not over:
        return StepOutcome.TIMEOUT
    return StepOutcome.PARTIAL if came else StepOutcome.REFUSED


def move(
    trial: StepContext,
    request: Callable[[], object],
    read: Callable[[], int],
    wanted: int,
    *,
    sign: int,
    patience: SettleTimeouts,
    wait: Callable[[float], object],
) -> StepResult:
    """Ask for a size and watch it settle; returns how that went."""
    before = read()
    requested_ns = trial.now_ns()
    request()
    came = settle(
        trial,
        read,
        wanted,
        before=before,
        sign=sign,
        requested_ns=requested_ns,
        patience=patience,
        wait=wait,
    )
    return StepResult(
        came.outcome,
        requested_ns=requested_ns,
        acknowledged_ns=came.acknowledged_ns,
        settled_ns=came.settled_ns,
        values=came.values,
        curve=came.curve,
    )

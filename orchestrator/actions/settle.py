"""Watching a size until it is where it was asked to be, or moves no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.actions.context import Outcome, TrialContext
from orchestrator.deadline import Deadline

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Settled:
    """How a size came to rest.

    `acknowledged_ns` is the first change seen (None: it never moved), `settled_ns` the last one
    (None: it never moved, or moved still),
    `timed_out` that it still moved when its time was over.
    """

    size: int
    acknowledged_ns: int | None
    settled_ns: int | None
    timed_out: bool

    def outcome(self, before: int, wanted: int) -> Outcome:
        """In a word, for a request to go from `before` to `wanted` bytes."""
        if self.size == wanted:
            return Outcome.DONE
        if self.timed_out:
            return Outcome.TIMEOUT
        return Outcome.REFUSED if self.size == before else Outcome.PARTIAL


def settle(
    trial: TrialContext,
    read: Callable[[], int],
    wanted: int,
    *,
    before: int,
    quiet_seconds: float,
    within_seconds: float,
    wait: Callable[[float], object],
) -> Settled:
    """Poll `read` until it says `wanted`, or nothing else for `quiet_seconds`, or the time is over.

    `before` is what it said before the request: the guest may have moved by the first look.
    "Settled" is not "for ever": virtio-mem tries again after 50 s and then ever more seldom
    (drivers/virtio/virtio_mem.c, VIRTIO_MEM_RETRY_TIMER_MIN_MS).
    """
    size = before
    changed_ns: int | None = None
    first_ns: int | None = None
    deadline, quiet = Deadline(within_seconds), Deadline(quiet_seconds)
    while True:
        now = read()
        if now != size:
            size, changed_ns, quiet = now, trial.now_ns(), Deadline(quiet_seconds)
            first_ns = changed_ns if first_ns is None else first_ns
        if size == wanted or deadline.expired or quiet.expired:
            break
        wait(min(POLL_SECONDS, deadline.remaining))
        trial.check()
    if size == before == wanted:
        changed_ns = first_ns = trial.now_ns()
    timed_out = size != wanted and not quiet.expired
    return Settled(size, first_ns, None if timed_out else changed_ns, timed_out)

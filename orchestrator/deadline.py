"""Waiting with an end: every wait is measured on the monotonic clock and gives up at a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """An instant on the monotonic clock, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining == 0.0

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this deadline and one `seconds` from now."""
        return Deadline(min(self.remaining, seconds))


def wait_for(
    look: Callable[[], T | None],
    deadline: Deadline,
    *,
    every: float,
    sleep: Callable[[float], object] = time.sleep,
) -> T | None:
    """Call `look` until it returns something that is not None or the deadline is over; then None.

    It looks at least once, and once more at the end. `sleep` may wake early, as an event does.
    """
    while True:
        last = deadline.expired
        found = look()
        if found is not None or last:
            return found
        sleep(min(every, deadline.remaining))

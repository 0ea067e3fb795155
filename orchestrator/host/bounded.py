"""Calls that end up in C and cannot be interrupted there, with an end to the wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from orchestrator.deadline import Deadline
from orchestrator.interrupts import PATIENCE_SECONDS, stopping

_LOOK_SECONDS: Final = 0.5


class UnansweredError(Exception):
    """A call did not return in time. It goes on in `thread`, and what it gives then is dropped."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__("no answer")
        self.thread = thread


def call_within(
    seconds: float, function: Callable[..., Any], *arguments: Any, unstick: Callable[[], None] | None = None
) -> Any:
    """What `function` gives, which is called in a thread; raises what it raises, and UnansweredError.

    A signal interrupts the wait, which no call in C would let it do. Where it may not
    (`interrupts.deferred`), `unstick` is called if the call has not returned PATIENCE_SECONDS later. The
    thread ends with this process. On a machine that gives no more threads it is called in this one, and has
    no such end.
    """
    answer: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put((function(*arguments), None))
        except Exception as error:  # noqa: BLE001  # raised again below, whatever it is
            answer.put((None, error))

    thread = threading.Thread(target=ask, name="asking", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return function(*arguments)
    deadline, patience = Deadline(seconds), None
    while True:
        try:
            given, error = answer.get(timeout=min(_LOOK_SECONDS, deadline.remaining))
            break
        except queue.Empty:
            if deadline.expired:
                raise UnansweredError(thread) from None
        if unstick and stopping():
            patience = patience or Deadline(PATIENCE_SECONDS)
            if patience.expired:
                unstick()
                unstick = None
    if error is not None:
        raise error
    return given

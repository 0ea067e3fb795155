"""Ending by a signal: what it interrupts, what it waits for, and what if it cannot.

Python runs handlers in the main thread only, between two of its instructions. So a clean-up can be
cut in two, which `deferred` prevents; and a call that does not return keeps a handler from running,
for which there is a watchdog.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A handler that has not run by then waits for a call that may never return.
PATIENCE_SECONDS = 10.0


class _Deferral:
    """How many `deferred` blocks the main thread is in, and whether a signal came meanwhile."""

    depth = 0
    noted = False


_deferral = _Deferral()


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block end first: a signal that `stopped_by_signals` handles is raised behind it.

    Behind the outermost block, that is, if there are several.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    _deferral.depth += 1
    try:
        yield
    finally:
        _deferral.depth -= 1
        if _deferral.noted and not _deferral.depth:
            _deferral.noted = False
            raise KeyboardInterrupt


def stopping() -> bool:
    """Whether a signal came that waits for the end of a `deferred` block: time to be quick."""
    return _deferral.noted and threading.current_thread() is threading.main_thread()


def interrupted(error: BaseException | None) -> bool:
    """Whether it was raised while a KeyboardInterrupt was being dealt with."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@contextmanager
def stopped_by_signals(notice: Callable[[], None], unstick: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP calls `notice` and raises KeyboardInterrupt; others do nothing.

    Nor do they behind the block: the process is to end, with the exit code of the first. `unstick` is
    called in another thread if the main thread is in a call that keeps it from that.
    """
    # What is ignored stays ignored: nohup(1) does that to SIGHUP, a shell to SIGINT of what it runs
    # in the background. None is a handler that is not Python's, which could not be put back.
    before = {
        number: handler
        for number in KINDS
        if (handler := signal.getsignal(number)) not in {signal.SIG_IGN, None}
    }
    answered = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        answered.set()
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        notice()
        if not _deferral.depth:
            raise KeyboardInterrupt
        _deferral.noted = True

    with _watchdog(answered, unstick):
        try:
            for number in before:
                signal.signal(number, stop)
            yield
        finally:
            if not answered.is_set():
                for number, handler in before.items():
                    signal.signal(number, handler)


@contextmanager
def _watchdog(answered: threading.Event, unstick: Callable[[], None]) -> Iterator[None]:
    # The interpreter writes the number of a signal to this descriptor as it comes, in whatever call
    # the main thread is (signal.set_wakeup_fd).
    reader, writer = socket.socketpair()
    writer.settimeout(0)  # set_wakeup_fd wants it not to block

    def watch() -> None:
        with reader:
            while number := reader.recv(1):
                if number[0] in KINDS and not answered.wait(PATIENCE_SECONDS):
                    unstick()

    threading.Thread(target=watch, name="signal watchdog", daemon=True).start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        answered.set()
        writer.close()

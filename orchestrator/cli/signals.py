"""Ending by a signal as by Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.interrupts import stopped_by_signals

_STDERR = 2


@contextmanager
def stop_at_signals(notice: str = "ending the guest and keeping what was read") -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; once it is ending, further ones change nothing."""

    def say() -> None:
        # Not through sys.stderr, in the middle of whose writing the signal may have come; and after
        # SIGHUP there may be no terminal to write to.
        with suppress(OSError):
            os.write(_STDERR, f"\nstopping: {notice}\n".encode())

    with stopped_by_signals(say, _kill_guests):
        yield


def _kill_guests() -> None:
    from orchestrator.host.runtime import kill_guests

    kill_guests()

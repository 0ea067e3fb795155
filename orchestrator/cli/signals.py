"""Ending by a signal as by Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_at_signals(notice: str = "ending the guest and keeping what was read") -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; once it is ending, further ones change nothing."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in kinds:
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write(f"\nstopping: {notice}\n")
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in kinds}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

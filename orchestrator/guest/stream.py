"""Reads what guest-probe writes: lines, and files with their length before them.

The stream comes from a guest and is not trusted: every length is bounded before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from orchestrator.errors import InfrastructureError

MAX_LINE_BYTES = 4096
MAX_FILE_BYTES = 1 << 18  # as in guest-probe.c
_NUMBER = re.compile(r"[0-9]{1,20}")  # a u64


class StreamError(InfrastructureError):
    """The guest's stream is not what guest-probe writes."""


class StreamCutError(StreamError):
    """The guest's stream ended before what it had begun to say did."""


def number(text: str) -> int:
    """A u64 in decimal. Raises StreamError."""
    if not _NUMBER.fullmatch(text):
        raise StreamError(f"a number was expected, not {text[:80]!r}")
    return int(text)


class Stream:
    """A stream; `receive(n)` gives up to n bytes, and none at its end."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._have = bytearray()

    def line(self) -> str | None:
        """The next line, or None at the end of the stream; a torn last line counts as the end."""
        while (end := self._have.find(b"\n")) < 0:
            if len(self._have) > MAX_LINE_BYTES:
                break
            if not self._more():
                return None
        if not 0 <= end <= MAX_LINE_BYTES:
            raise StreamError("a line is too long")
        text = self._have[:end].decode(errors="replace")
        del self._have[: end + 1]
        return text

    def file(self, path: str, size: int | None) -> str | None:
        """A file's text and the newline after it; None where it has no size, being unreadable."""
        if size is not None and size > MAX_FILE_BYTES:
            raise StreamError(f"{path[:80]!r} has {size} bytes")
        text = None if size is None else self.exactly(size).decode(errors="replace")
        self.exactly(1)
        return text

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes, which the caller has bounded."""
        while len(self._have) < size:
            if not self._more():
                raise StreamCutError("the stream ended within a file")
        part = bytes(self._have[:size])
        del self._have[:size]
        return part

    def _more(self) -> bool:
        part = self._receive(1 << 16)
        self._have += part
        return bool(part)

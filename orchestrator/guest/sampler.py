"""Reads the stream of `guest-probe sample`: the guest's files as they were, tick by tick.

The stream comes from a guest and is not trusted: every length is bounded before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.errors import InfrastructureError

PROGRAM = "/usr/local/bin/guest-probe"
MAX_LINE_BYTES = 4096
MAX_FILE_BYTES = 1 << 18  # as in guest-probe.c
MAX_FILES = 1024
_NUMBER = re.compile(r"[0-9]{1,20}")  # a u64


@dataclass(frozen=True)
class Tick:
    """One reading of all files: path -> text, or None where the guest could not read it.

    `processes` holds (comm, pid, text of /proc/PID/status).
    """

    uptime_ns: int
    files: dict[str, str | None] = field(default_factory=dict)
    processes: tuple[tuple[str, int, str], ...] = ()


class StreamError(InfrastructureError):
    """The guest's stream is not what guest-probe writes."""


def sampler_argv(interval_seconds: float, files: list[str], processes: list[str]) -> list[str]:
    """The command that writes the stream. Niced below everything: it must not take from the workload."""
    tail = ["--", *processes] if processes else []
    return [PROGRAM, "sample", str(max(10, round(interval_seconds * 1000))), *files, *tail]


def read_ticks(receive: Callable[[int], bytes]) -> Iterator[Tick]:
    """Ticks from a stream. `receive(n)` gives up to n bytes, and none at its end."""
    stream = _Buffered(receive)
    while (line := stream.line()) is not None:
        kind, _, uptime_ns = line.partition(" ")
        if kind != "#tick":
            raise StreamError(f"a tick was expected, not {line[:80]!r}")
        yield _tick(stream, _number(uptime_ns))


def _tick(stream: _Buffered, uptime_ns: int) -> Tick:
    files: dict[str, str | None] = {}
    processes: list[tuple[str, int, str]] = []
    owner: tuple[str, int] | None = None
    for _ in range(MAX_FILES):
        line = stream.line()
        if line is None:
            raise StreamError("the stream ended within a tick")
        match line.split(" "):
            case ["#end"]:
                return Tick(uptime_ns, files, tuple(processes))
            case ["#process", comm, pid]:
                owner = (comm[:64], _number(pid))
            case ["#file", path, size]:
                text = stream.file(path, None if size == "-1" else _number(size))
                if owner is None:
                    files[path] = text
                elif text is not None:
                    processes.append((*owner, text))
                owner = None
            case _:
                raise StreamError(f"a file was expected, not {line[:80]!r}")
    raise StreamError(f"a tick has more than {MAX_FILES} files")


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise StreamError(f"a number was expected, not {text[:80]!r}")
    return int(text)


class _Buffered:
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
        while len(self._have) < size:
            if not self._more():
                raise StreamError("the stream ended within a file")
        part = bytes(self._have[:size])
        del self._have[:size]
        return part

    def _more(self) -> bool:
        part = self._receive(1 << 16)
        self._have += part
        return bool(part)

"""Reads the stream of `guest-probe sample`: the guest's files as they were, tick by tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.guest.stream import Stream, StreamCutError, StreamError, number

PROGRAM = "/usr/local/bin/guest-probe"
MAX_FILES = 1024


@dataclass(frozen=True)
class Tick:
    """One reading of all files: path -> text, or None where the guest could not read it.

    `processes` holds (comm, pid, text of /proc/PID/status).
    """

    uptime_ns: int
    files: dict[str, str | None] = field(default_factory=dict)
    processes: tuple[tuple[str, int, str], ...] = ()


def sampler_argv(interval_seconds: float, files: list[str], processes: list[str]) -> list[str]:
    """The command that writes the stream. Niced below everything: it must not take from the workload."""
    tail = ["--", *processes] if processes else []
    return [PROGRAM, "sample", str(max(10, round(interval_seconds * 1000))), *files, *tail]


def read_ticks(receive: Callable[[int], bytes]) -> Iterator[Tick]:
    """Ticks from a stream. `receive(n)` gives up to n bytes, and none at its end."""
    stream = Stream(receive)
    while (line := stream.line()) is not None:
        kind, _, uptime_ns = line.partition(" ")
        if kind != "#tick":
            raise StreamError(f"a tick was expected, not {line[:80]!r}")
        yield _tick(stream, number(uptime_ns))


def _tick(stream: Stream, uptime_ns: int) -> Tick:
    files: dict[str, str | None] = {}
    processes: list[tuple[str, int, str]] = []
    owner: tuple[str, int] | None = None
    for _ in range(MAX_FILES):
        line = stream.line()
        if line is None:
            raise StreamCutError("the stream ended within a tick")
        match line.split(" "):
            case ["#end"]:
                return Tick(uptime_ns, files, tuple(processes))
            case ["#process", comm, pid]:
                owner = (comm[:64], number(pid))
            case ["#file", path, size]:
                text = stream.file(path, None if size == "-1" else number(size))
                if owner is None:
                    files[path] = text
                elif text is not None:
                    processes.append((*owner, text))
                owner = None
            case _:
                raise StreamError(f"a file was expected, not {line[:80]!r}")
    raise StreamError(f"a tick has more than {MAX_FILES} files")

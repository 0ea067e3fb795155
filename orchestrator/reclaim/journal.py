"""The journal of `reclaim --policy`: a line of JSON for each attempt, in a bounded file."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, ValidationError

from orchestrator.deadline import Deadline, wait_for
from orchestrator.levers import Scope
from orchestrator.records.base import Record, Text, Values
from orchestrator.records.step import StepOutcome

MOST_BYTES: Final = 4 << 20
"""From there on the file is renamed to FILE.1, in the place of the one before."""
_LOCK_SECONDS: Final = 5.0
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

Bytes: TypeAlias = Mapping[str, int | None]


class Line(Record):
    """One line. `event` says of what: an attempt; what an attempt would have been (`dry-run`); what keeps the
    loop from its work, or does no more (`notice`); or lines that could not be written.

    `outcome` is that of an attempt, and what a dry run knows of it: `refused`. `because` is why it was due,
    `reason` why there is less than was asked for. `measured`, by moment, and `psi_some_avg10` are
    measured; null is not known.
    """

    version: Literal[1]
    time: Text
    """When it was written, which is when an attempt has ended; UTC, ISO 8601."""
    event: Literal["attempt", "dry-run", "notice", "lost-lines"]
    host: Text
    vm: Text = ""
    lever: Text = ""
    scope: Scope | None = None
    outcome: StepOutcome | None = None
    because: Text = ""
    reason: Text = ""
    psi_some_avg10: float | None = None
    predicted: Bytes | None = None
    measured: Mapping[str, Mapping[str, int | str | None]] = Field(default_factory=dict)
    settle_seconds: float | None = None
    values: Values = Field(default_factory=dict)
    lost_lines: Annotated[int, Field(ge=0)] = 0

    def json_line(self) -> bytes:
        """Without what was never set."""
        return self.model_dump_json(exclude_unset=True).encode() + b"\n"


class Journal:
    """The file. Writing it never raises: `complain` takes a sentence, and lines that are lost are counted."""

    def __init__(self, path: Path, complain: Callable[[str], None], most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._complain = complain
        self._most_bytes = most_bytes
        self._lost = 0

    def check(self) -> None:
        """Raise OSError where it cannot be written at all; a disk that is full may have room later."""
        try:
            with self._opened():
                pass
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise

    def write(self, line: Line) -> None:
        """Add a line, before it a count of those that were lost until now."""
        data = line.json_line()
        if self._lost:
            count = Line(version=1, time=line.time, event="lost-lines", host=line.host, lost_lines=self._lost)
            data = count.json_line() + data
        try:
            self._make_room(len(data))
            with self._opened() as descriptor:
                _append(descriptor, data)
        except OSError as error:
            self._lost += 1
            many = "a line is" if self._lost == 1 else f"{self._lost} lines are"
            self._complain(f"{many} missing in {self._path}: {error.strerror}")
            return
        if self._lost:
            self._complain(f"{self._path} is written again, and says that {self._lost} lines are missing")
        self._lost = 0

    def attempts(self) -> Iterator[Line]:
        """Attempts that it has, and what they would have been, the oldest first. Others may write the file:
        what is no such line is left out. Raises OSError."""
        for path in (self._former, self._path):
            for text in _bounded(path, self._most_bytes).splitlines():
                try:
                    line = Line.model_validate_json(text)
                except ValidationError:
                    continue
                if line.event in {"attempt", "dry-run"}:
                    yield line

    @property
    def _former(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    def _make_room(self, more: int) -> None:
        """Renaming takes no space of a disk that is full, but for the name."""
        if self._path.is_file() and self._path.stat().st_size + more > self._most_bytes:
            self._path.replace(self._former)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o640)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _append(descriptor: int, data: bytes) -> None:
    """All of it or nothing: where the disk ends within a line, what was written of it goes again."""
    # Another loop may write the same file, and take off what it wrote. The lock ends with the descriptor.
    if wait_for(lambda: _locked(descriptor), Deadline(_LOCK_SECONDS), every=0.1) is None:
        raise BlockingIOError(errno.EAGAIN, "somebody else has locked it")
    before = os.fstat(descriptor)
    if os.write(descriptor, data) < len(data):
        if stat.S_ISREG(before.st_mode):
            os.ftruncate(descriptor, before.st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked(descriptor: int) -> Literal[True] | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True


def _bounded(path: Path, most_bytes: int) -> bytes:
    """The end of a file; nothing of what is none, as /dev/full."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - most_bytes))
            return stream.read(most_bytes)
    except FileNotFoundError:
        return b""

"""What must hold of every input: a result or a designed error, in bounded time and memory, and nothing is
written where it may not be.

A fault is what does not hold, named by where it came from, so that the same one counts once.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from targets.base import Target

from orchestrator.errors import ExitCode, OrchestratorError

PACKAGE: Final = f"{os.sep}orchestrator{os.sep}"
MOST_MEMORY: Final = 512 << 20
"""Bytes by which one input may make the process grow; a fault beyond."""
_DESIGNED: Final = frozenset({ExitCode.BAD_INPUT, ExitCode.INFRASTRUCTURE})
_MOST_WORDS: Final = 400

# https://docs.python.org/3/library/audit_events.html: what changes a file.
_CHANGES: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    # Places of a path among the arguments, and of the descriptor of the folder that it is relative to.
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("os.mkdir", "os.chmod", "os.mkfifo", "os.mknod"), ((0, 2),)),
    **dict.fromkeys(("os.chown", "os.utime"), ((0, 3),)),
    **dict.fromkeys(("os.link", "os.rename"), ((0, 2), (1, 3))),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, -1),),
}
_STARTS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class"}
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Fault:
    """What an input did that none may do. `where` is a place in the package, and `what` is short."""

    kind: str
    where: str
    what: str
    trace: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """The same for the same fault, whatever input shows it."""
        return self.kind, self.where


class _Watch:
    """Files that are written, and programs that are started, while an input is executed."""

    def __init__(self) -> None:
        self._inside: tuple[str, ...] | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._look)  # there is no way back (PEP 578)

    @contextmanager
    def on(self, *inside: Path) -> Iterator[None]:
        self._inside, self.outside = _real(inside), []
        try:
            yield
        finally:
            self._inside = None

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._inside is None:
            return
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(flags, int) and flags & _WRITES) or (
                isinstance(mode, str) and set(mode) & set("wax+")
            ):
                self._must_be_inside(event, path)
        elif event in _CHANGES:
            for place, relative_to in _CHANGES[event]:
                folder = arguments[relative_to] if 0 <= relative_to < len(arguments) else -1
                self._must_be_inside(event, arguments[place], folder if isinstance(folder, int) else -1)
        elif event in _STARTS:
            self.outside.append(f"{event} {arguments[:2]!r}"[:_MOST_WORDS])

    def _must_be_inside(self, event: str, path: object, folder: int = -1) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor: its file was opened before
        inside, self._inside = self._inside, None  # what is looked up here is none of the input's
        try:
            text = os.fsdecode(path)
            if folder >= 0 and not text.startswith(os.sep):
                text = f"/proc/self/fd/{folder}/{text}"
            above, _, name = text.rpartition(os.sep)
            real = (
                os.path.realpath(text)
                if event == "open"
                else f"{os.path.realpath(above or '.')}{os.sep}{name}"
            )
            # What is imported for the first time is compiled, and that is kept.
            if (
                real != os.devnull
                and "__pycache__" not in Path(real).parts
                and not any(real.startswith(f"{one}{os.sep}") or real == one for one in inside or ())
            ):
                self.outside.append(f"{event} {real}"[:_MOST_WORDS])
        finally:
            self._inside = inside


@cache
def _real(folders: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(os.path.realpath(folder) for folder in folders)


@cache
def _watch() -> _Watch:
    return _Watch()


def execute(target: Target, data: bytes) -> Fault | None:
    """Give one input to a target. None where all held."""
    watch = _watch()
    before = _peak_bytes()
    began = time.process_time()
    fault: Fault | None = None
    with watch.on(*target.may_write()):
        try:
            target.feed(data)
        except target.designed:
            pass
        except OrchestratorError as error:
            fault = _of_designed(error)
        except Exception as error:  # noqa: BLE001  # any other is what is looked for
            fault = _of(error)
    seconds, grown = time.process_time() - began, _peak_bytes() - before
    if fault is None and watch.outside:
        fault = Fault("writes outside", target.name, watch.outside[0])
    if fault is None and seconds > target.seconds:
        fault = Fault("slow", target.name, f"{seconds:.1f} s of CPU time for {len(data)} bytes")
    if fault is None and grown > MOST_MEMORY:
        fault = Fault("memory", target.name, f"{grown >> 20} MiB for {len(data)} bytes")
    return fault


def _of_designed(error: OrchestratorError) -> Fault | None:
    """A designed error has a code that says whose fault it was, and says what is wrong."""
    if error.exit_code not in _DESIGNED:
        return Fault(f"exit code {int(error.exit_code)}", _place(error), error.brief[:_MOST_WORDS])
    if not error.brief.strip():
        return Fault("empty error", _place(error), type(error).__name__)
    return None


def _of(error: Exception) -> Fault:
    trace = "".join(traceback.format_exception(error))
    return Fault(type(error).__name__, _place(error), str(error)[:_MOST_WORDS], trace[-6000:])


def _place(error: BaseException) -> str:
    """The innermost line of the package."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if PACKAGE in one.filename] or list(frames)
    last = ours[-1]
    return f"{last.filename.rpartition(PACKAGE)[2]}:{last.lineno} {last.name}"


def _peak_bytes() -> int:
    # Not ru_maxrss: it has the peak of what this process was before exec(2), too.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) << 10


def limit_memory(address_space: int) -> None:
    """No input takes more than that many bytes: what asks for it gets a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

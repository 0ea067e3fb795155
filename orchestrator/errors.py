"""Errors that say what failed, where, what the guest last printed, and what to type next.

Everything the program raises on purpose is an `OrchestratorError`; the command line turns it into
one readable message and the exit code that its class names (docs/architecture.md, "Exit codes").
"""

from __future__ import annotations

import errno
import os
import shlex
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final

MORE_FILES: Final = "let it open more files: ulimit -n 1024"


class ExitCode(IntEnum):
    """What the process tells its caller."""

    COMPLETED = 0
    EXPECTATION_FAILED = 1
    BAD_INPUT = 2
    INFRASTRUCTURE = 3
    INTERRUPTED = 130


class OrchestratorError(Exception):
    """Base of all deliberate errors.

    `brief` is one line. `details` may be several. `hint` is what to do or type next.
    `console_tail` is the end of a guest's serial console, already bounded and printable.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INFRASTRUCTURE

    def __init__(self, brief: str, *, details: str = "", hint: str = "", console_tail: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint
        self.console_tail = console_tail


class BadInputError(OrchestratorError):
    """The user's words, file or value cannot be used; nothing was started."""

    exit_code = ExitCode.BAD_INPUT


@dataclass(frozen=True)
class Problem:
    """One fault in a file: where it stands, what is wrong, what would be right."""

    file: str
    line: int  # 1-based
    column: int  # 1-based
    wrong: str
    right: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.wrong}"
        return f"{text}; {self.right}" if self.right else text


class FileProblemsError(BadInputError):
    """A scenario or definition file has faults; `problems` lists every one that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class InfrastructureError(OrchestratorError):
    """The host, its libvirt or a tool we call failed."""


def host_failure(error: OSError) -> InfrastructureError:
    """What the kernel of this machine refused: the file, why, and what to look at."""
    file = _named(error.filename)
    what = error.strerror or str(error) or type(error).__name__
    hint = "orchestrator doctor"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = f"free some space: df -h {shlex.quote(file)}" if os.sep in file else "free some space: df -h"
    elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} and file:
        hint = f"see whose it is: ls -ld {shlex.quote(file)}"
    elif error.errno in {errno.EMFILE, errno.ENFILE}:
        hint = MORE_FILES
    return InfrastructureError(f"{file}: {what}" if file else what, hint=hint)


def machine_refusal(error: Exception) -> InfrastructureError | None:
    """What the machine refused that has no errno in Python: memory, or a thread; None for other errors."""
    if isinstance(error, MemoryError):
        hint = "free -m; ulimit -v; memory.max of the cgroup"
        return InfrastructureError("this machine gives the orchestrator no more memory", hint=hint)
    # The words are those of CPython's Modules/_threadmodule.c.
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        hint = "ulimit -u; pids.max of the cgroup"
        return InfrastructureError("this machine gives the orchestrator no more threads", hint=hint)
    return None


def _named(file: object) -> str:
    """The file that an error is about; of one with a temporary name, which is gone by now, its folder."""
    if isinstance(file, bytes):
        file = os.fsdecode(file)
    if not isinstance(file, str | os.PathLike) or not os.fspath(file):
        return ""
    path = Path(file)
    temporary = path.name.startswith((".", tempfile.gettempprefix()))
    return str(path.parent) if temporary and not path.exists() and path.parent.is_dir() else str(path)


class GuestError(InfrastructureError):
    """A guest failed. `outcome` is what its trial is recorded with."""

    outcome: ClassVar[str] = "failed"


class GuestPanicError(GuestError):
    """The guest kernel printed a panic."""

    outcome = "panic"


class BootTimeoutError(GuestError):
    """The guest did not reach ssh in time."""

    outcome = "boot-timeout"


class GuestLostError(GuestError):
    """The guest ran and then stopped answering: ssh is gone or QEMU has ended."""

    outcome = "lost"


class CommandError(GuestError):
    """A command in the guest failed though the guest answers."""

    outcome = "command-failed"


class WorkloadKilledError(CommandError):
    """A workload's process was killed. That is the outcome of its step, and not the end of the trial."""


class CommandTimeoutError(GuestError):
    """A command in the guest did not end in time though the guest answers."""

    outcome = "timeout"


class SetupError(GuestError):
    """The playbook failed in the guest."""

    outcome = "setup-failed"

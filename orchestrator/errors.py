"""Errors that say what failed, where, what the guest last printed, and what to type next.

Everything the program raises on purpose is an `OrchestratorError`; the command line turns it into
one readable message and the exit code that its class names (docs/architecture.md, "Exit codes").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


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

"""A driver of one of our programs (workloads/common/holder.h): it works, reports, and stays."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

from pydantic import Field

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, CommandTimeoutError, WorkloadKilledError
from orchestrator.guest.shell import GuestShell
from orchestrator.jsontext import parse_json
from orchestrator.workloads.base import WorkloadDriver, WorkloadResult

_MAX_FIGURES = 32
# 128 + SIGKILL, as a holder says of its child; none, where the program was killed itself (paramiko: -1).
_KILLED = (137, -1)
_NO_SUCH_PROCESS = 1  # pkill(1)
_FIGURE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ProgramDriver(WorkloadDriver):
    """Starts the program in the background and ends it with SIGTERM."""

    # comm, by which its processes are found, has at most 15 characters (TASK_COMM_LEN).
    program: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,14}\.(c|py)$")]
    """Source of the program, beside `workload.yaml`; the process has its name."""

    figures: ClassVar[tuple[str, ...]] = ("held_bytes",)
    """What it has to report."""

    @abstractmethod
    def words(self, seed: int) -> list[str]:
        """Arguments of the program."""

    def variables(self) -> dict[str, str]:
        """Environment of the program, beside the usual one."""
        return {}

    def argv(self, seed: int) -> list[str]:
        """The command that becomes the program."""
        given = [f"{name}={value}" for name, value in self.variables().items()]
        return [*(["env", *given] if given else []), f"/usr/local/bin/{self.name}", *self.words(seed)]

    def measured(self, text: str) -> dict[str, float]:
        """What the program printed, by name with unit. Raises ValueError."""
        return parse_report(text, self.figures)

    @property
    def name(self) -> str:
        """Name of the program in the guest, and of its process."""
        return PurePath(self.program).stem

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.name,)

    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:
        done = shell.run(
            self.argv(seed), seconds=deadline.remaining, check=False, oom_score_adj=self.oom_score_adj
        )
        if done.code in _KILLED:
            raise WorkloadKilledError(f"{self.name} was killed before it held what it was to hold")
        if done.code != 0:
            said = done.stderr.decode(errors="replace")[-2000:]
            raise CommandError(f"in the guest, {self.name} ended with code {done.code}", details=said)
        try:
            return self.measured(done.text)
        except ValueError as error:
            raise CommandError(f"{self.name} printed no result: {error}", details=done.text[:500]) from None

    def stop(self, shell: GuestShell, *, deadline: Deadline) -> WorkloadResult:
        ended = shell.run(["pkill", "-x", self.name], seconds=deadline.remaining, check=False)
        while shell.run(["pgrep", "-x", self.name], seconds=deadline.remaining, check=False).code == 0:
            if deadline.expired:
                raise CommandTimeoutError(f"{self.name} did not end")
        return WorkloadResult(gone=ended.code == _NO_SUCH_PROCESS)


def parse_report(text: str, figures: tuple[str, ...]) -> dict[str, float]:
    """What a program measured, by name with unit: all that it printed but its process id.

    Raises ValueError when that is not such a line of JSON, or one of `figures` is not in it.
    """
    return checked_figures(answer_of(text), figures)


def answer_of(text: str) -> Any:
    """The JSON that a program printed. Raises ValueError."""
    return parse_json(text)


def checked_figures(answer: object, figures: tuple[str, ...]) -> dict[str, float]:
    """The figures of a program's answer but its process id. Raises ValueError as `parse_report`."""
    if not isinstance(answer, dict) or len(answer) > _MAX_FIGURES:
        raise ValueError(f"it is no object of at most {_MAX_FIGURES} figures")
    measured = {name: _figure(name, value) for name, value in answer.items() if name != "pid"}
    missing = [name for name in figures if name not in measured]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return measured


def _figure(name: str, value: object) -> float:
    if not _FIGURE.fullmatch(name):
        raise ValueError("a figure has no proper name")
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is no figure of 0 or more")
    return number

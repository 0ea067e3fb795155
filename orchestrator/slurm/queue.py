"""The seam to Slurm: an array is submitted, looked at, and cancelled, by Slurm's own commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.printable import clean, clean_block

_COMMAND_SECONDS: Final = 60.0
_UNKNOWN_JOB: Final = "Invalid job id"

# Of squeue(1), JOB STATE CODES: those in which a task is over. PREEMPTED and NODE_FAIL are left again where
# Slurm queues the task anew; it is pending then.
_ENDED: Final = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)


@dataclass(frozen=True)
class Task:
    """A task of an array: its state and the reason for that, in Slurm's words, and its node."""

    state: str
    reason: str = ""
    node: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, and nothing will."""
        return self.state in _ENDED

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"}

    def __str__(self) -> str:
        reason = "" if self.reason in {"", "None"} else f" ({self.reason})"
        return f"{self.state}{reason}{f' on {self.node}' if self.node else ''}"


class Queue(ABC):
    """What is asked of Slurm. Raises InfrastructureError where it does not answer."""

    @abstractmethod
    def check(self) -> None:
        """Raise BadInputError where there is no Slurm."""

    @abstractmethod
    def submit(self, words: Sequence[str]) -> int:
        """Submit a job by the words that sbatch is given. Returns the job's number."""

    @abstractmethod
    def tasks(self, job: int) -> Mapping[int, Task]:
        """The tasks of an array that Slurm still knows, by index. It forgets them a while after their end."""

    @abstractmethod
    def history(self, job: int) -> Mapping[int, Task]:
        """The same from Slurm's accounting, which remembers; nothing where there is none."""

    @abstractmethod
    def latest(self, name: str) -> int | None:
        """The last job of this user of that name that Slurm still knows."""

    @abstractmethod
    def cancel(self, job: int) -> None:
        """Have all tasks end: SIGTERM, and SIGKILL some time later."""


class Commands(Queue):
    """Slurm's commands, as they are on PATH."""

    def check(self) -> None:
        absent = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if absent:
            raise BadInputError(
                f"there is no {' and no '.join(absent)} on this machine",
                hint="--slurm is for a machine from which jobs are submitted",
            )

    def submit(self, words: Sequence[str]) -> int:
        said = _called("sbatch", "--parsable", *words).strip()
        found = re.match(r"(\d+)(;|$)", said.splitlines()[-1] if said else "")
        if not found:
            raise InfrastructureError("sbatch does not say which job it has made", details=clean_block(said))
        return int(found[1])

    def tasks(self, job: int) -> Mapping[int, Task]:
        try:
            said = _called("squeue", f"--jobs={job}", *_SQUEUE, "--format=%K|%T|%r|%N")
        except InfrastructureError as error:
            if _UNKNOWN_JOB in error.details:  # it is over, and forgotten
                return {}
            raise
        rows = (line.strip().split("|") for line in said.splitlines())
        return {int(row[0]): Task(*map(clean, row[1:])) for row in rows if len(row) == 4 and row[0].isdigit()}

    def history(self, job: int) -> Mapping[int, Task]:
        words = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList")
        try:
            said = _called("sacct", f"--jobs={job}", *words)
        except InfrastructureError:
            return {}
        found = re.finditer(rf"^{job}_(\d+)\|([A-Z_]+)[^|\n]*\|(.*)$", said, re.MULTILINE)
        return {int(row[1]): Task(row[2], node=clean(row[3])) for row in found}

    def latest(self, name: str) -> int | None:
        said = _called("squeue", "--me", f"--name={name}", *_SQUEUE, "--format=%F")
        return max((int(word) for word in said.split() if word.isdigit()), default=None)

    def cancel(self, job: int) -> None:
        _called("scancel", str(job))


_SQUEUE: Final = ("--array", "--states=all", "--noheader")


def _called(*argv: str) -> str:
    """What a command of Slurm's prints."""
    try:
        # In a session of its own: Ctrl-C is ours to answer, not that of a command under way.
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise InfrastructureError(f"there is no {argv[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"{argv[0]} did not answer in {_COMMAND_SECONDS:.0f} s", hint="does slurmctld run? scontrol ping"
        ) from None
    if done.returncode:
        raise InfrastructureError(
            f"{argv[0]} ended with code {done.returncode}", details=clean_block(done.stderr.strip())
        )
    return done.stdout

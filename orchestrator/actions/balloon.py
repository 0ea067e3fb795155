"""Taking boot memory by the balloon, and giving it back: `inflate` and `deflate`."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import TrialContext
from orchestrator.actions.settle import settle
from orchestrator.host.machine import Machine
from orchestrator.units import PAGE_BYTES, Duration, Size, format_size, write_size


def _move(trial: TrialContext, target: int, within: float, quiet: float) -> None:
    domain = trial.domain
    before = domain.balloon_bytes()
    requested_ns = trial.now_ns()
    domain.request_balloon(target)
    came = settle(
        trial,
        domain.balloon_bytes,
        target,
        before=before,
        quiet_seconds=quiet,
        within_seconds=within,
        wait=trial.sleep,
    )
    trial.done(
        came.outcome(before, target),
        requested_ns=requested_ns,
        acknowledged_ns=came.acknowledged_ns,
        settled_ns=came.settled_ns,
        values={
            # Positive in the direction that was asked for, whichever that is.
            "requested_bytes": abs(target - before),
            "achieved_bytes": (came.size - before) * (1 if target >= before else -1),
            "shortfall_bytes": (target - came.size) * (1 if target >= before else -1),
            "size_before_bytes": before,
            "size_after_bytes": came.size,
        },
    )


@ACTIONS.register("inflate")
class Inflate(Action):
    """Take memory by the balloon: by this much of what the guest booted with."""

    by: Size
    """How much of the boot memory the balloon is to take."""
    within: Duration = 120.0
    """How long it may move at the most."""
    settle: Duration = 5.0
    """How long its size must stay the same to count as settled."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        if not 0 < self.by < machine.memory:
            yield FieldProblem(
                "by",
                f"the balloon cannot take {write_size(self.by)} of {write_size(machine.memory)} boot memory",
                f"ask for less than {write_size(machine.memory)}",
            )
        if self.by % PAGE_BYTES:
            yield FieldProblem(
                "by", f"{write_size(self.by)} is no whole number of pages", "use a multiple of 4KiB"
            )

    def describe(self) -> str:
        return f"inflate the balloon by {format_size(self.by)}"

    def run(self, trial: TrialContext) -> None:
        _move(trial, trial.machine.memory - self.by, self.within, self.settle)


@ACTIONS.register("deflate")
class Deflate(Action):
    """Give back all that the balloon took."""

    within: Duration = 120.0
    """How long it may move at the most."""
    settle: Duration = 5.0
    """How long its size must stay the same to count as settled."""

    def describe(self) -> str:
        return "deflate the balloon"

    def run(self, trial: TrialContext) -> None:
        _move(trial, trial.machine.memory, self.within, self.settle)

"""`exec`: run a command in the guest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import TrialContext
from orchestrator.deadline import Deadline
from orchestrator.records.step import Outcome, StepResult
from orchestrator.units import Duration


@ACTIONS.register("exec")
class Exec(Action):
    """Run a command in the guest, as root; a code other than 0 ends the trial."""

    argv: Annotated[list[str], Field(min_length=1, max_length=1000)]
    """The command and its arguments; no shell is involved unless you name one."""
    within: Duration = 60.0
    """How long it may take."""

    def describe(self) -> str:
        return f"exec {' '.join(self.argv)}"[:60]

    def run(self, trial: TrialContext) -> StepResult:
        requested_ns = trial.now_ns()
        trial.execute(self.argv, Deadline(self.within))
        return StepResult(Outcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns())

"""`touch`: make an empty file in the guest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.deadline import Deadline
from orchestrator.records.step import StepOutcome, StepResult


@ACTIONS.register("added")
class Touch(Action):
    """Make an empty file in the guest."""

    path: Annotated[str, Field(pattern=r"^/tmp/[a-z]+$")]
    """Where."""

    def describe(self) -> str:
        return f"touch {self.path}"

    def run(self, trial: StepContext) -> StepResult:
        trial.execute(["touch", self.path], Deadline(60.0))
        return StepResult(StepOutcome.DONE)

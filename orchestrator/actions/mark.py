"""`mark`: give a moment a name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.records.step import StepOutcome, StepResult


@ACTIONS.register("mark")
class Mark(Action):
    """Give the moment a name: tables and charts say what was read then."""

    moment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """What to call it."""

    def describe(self) -> str:
        return f"mark {self.moment}"

    def run(self, trial: StepContext) -> StepResult:
        trial.mark(self.moment)
        return StepResult(StepOutcome.DONE)

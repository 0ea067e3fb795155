"""`wait`: let time pass."""

from __future__ import annotations

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.units import Duration, format_duration


@ACTIONS.register("wait")
class Wait(Action):
    """Let time pass while the probes go on."""

    time: Duration
    """How long."""

    def describe(self) -> str:
        return f"wait {format_duration(self.time)}"

    def run(self, trial: StepContext) -> StepResult:
        trial.sleep(self.time)
        return StepResult(StepOutcome.DONE)

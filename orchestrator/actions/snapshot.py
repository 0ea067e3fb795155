"""`snapshot`: keep the state of page frames and page tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.actions.resize import NO_GUEST_OF_OURS
from orchestrator.records.step import StepOutcome, StepResult


@ACTIONS.register("snapshot")
class TakeSnapshot(Action):
    """Read page-frame flags and page-table pages, for the model and the block map."""

    label: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """What to call it: it names the file, and stands in the report."""
    of: Literal["guest", "host"] = "guest"
    """Of what: `host` is a nested host; any other refuses."""

    def describe(self) -> str:
        return f"snapshot {self.label}" if self.of == "guest" else f"snapshot {self.label} of the host"

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        if self.of == "host" and trial.host_domain is None:
            return StepResult(StepOutcome.REFUSED, message=NO_GUEST_OF_OURS)
        trial.snapshot(self.label, of_host=self.of == "host")
        return StepResult(StepOutcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns())

"""`snapshot`: keep the state of page frames and page tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import Outcome, TrialContext


@ACTIONS.register("snapshot")
class TakeSnapshot(Action):
    """Read page-frame flags and page-table pages, for the model and the block map."""

    label: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """What to call it: it names the file, and stands in the report."""

    def describe(self) -> str:
        return f"snapshot {self.label}"

    def run(self, trial: TrialContext) -> None:
        requested_ns = trial.now_ns()
        trial.snapshot(self.label)
        trial.done(Outcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns())

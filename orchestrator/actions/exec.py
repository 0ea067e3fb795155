"""`exec`: run a command in the guest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.deadline import Deadline
from orchestrator.printable import printable
from orchestrator.records.events import CommandOutput
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.units import Duration

KEPT_BYTES = 64 << 10  # of what it printed; as of a console, the end says how it came out


@ACTIONS.register("exec")
class Exec(Action):
    """Run a command in the guest, as root; a code other than 0 ends the trial. What it prints is kept."""

    argv: Annotated[list[str], Field(min_length=1, max_length=1000)]
    """The command and its arguments; no shell is involved unless you name one."""
    timeout: Duration = 60.0
    """How long it may take."""

    def describe(self) -> str:
        return f"exec {' '.join(self.argv)}"

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        text = printable(trial.execute(self.argv, Deadline(self.timeout)))
        kept = text.encode()[-KEPT_BYTES:].decode(errors="ignore")
        trial.record(
            CommandOutput(
                t_ns=trial.now_ns(), step=trial.step, text=kept, left_out_characters=len(text) - len(kept)
            )
        )
        return StepResult(StepOutcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns())

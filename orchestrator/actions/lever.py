"""What steps that pull a lever have in common: what is held before, at once, and when faults have come."""

from __future__ import annotations

from orchestrator.actions.base import Action
from orchestrator.actions.context import StepContext
from orchestrator.levers import Lever, LeverTarget
from orchestrator.levers.base import Held
from orchestrator.records.step import StepResult
from orchestrator.units import Duration


class LeverStep(Action, Lever):
    """Pull the lever. It takes no memory from the guest, so it has no direction and no curve."""

    settle: Duration = 15.0
    """How long to wait, before what is held is read again: faults make tables anew meanwhile."""

    def run(self, trial: StepContext) -> StepResult:
        from orchestrator.host.qemu_process import ram_segments

        def wait(seconds: float) -> None:
            trial.sleep(seconds)
            trial.check()

        segments = ram_segments(trial.domain, trial.machine)
        target = LeverTarget(trial.domain, trial.domain.qemu, segments, trial.runtime, wait)
        before = target.held()
        requested_ns = trial.now_ns()
        pulled = self.pull(target)
        acknowledged_ns = trial.now_ns()
        at_once = target.held()
        wait(self.settle)
        after = target.held()
        values = dict(pulled.values)
        for moment, held in (("before", before), ("at_once", at_once), ("after", after)):
            values |= _values(moment, held)
        return StepResult(
            pulled.outcome,
            requested_ns=requested_ns,
            acknowledged_ns=acknowledged_ns,
            settled_ns=trial.now_ns(),
            values=values,
            message=pulled.message,
        )


def _values(moment: str, held: Held) -> dict[str, float]:
    """By name; what was not measured is left out."""
    values = {
        f"second_level_{moment}_bytes": held.second_level,
        f"resident_{moment}_bytes": held.resident,
        f"host_page_table_{moment}_bytes": held.page_tables,
        f"faults_{moment}": held.faults,
    }
    return {name: value for name, value in values.items() if value is not None}

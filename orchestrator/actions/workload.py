"""Starting and stopping what runs in the guest: `start` and `stop`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.actions.context import StepContext
from orchestrator.deadline import Deadline
from orchestrator.errors import WorkloadKilledError
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.units import Duration

WorkloadName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


@ACTIONS.register("start")
class Start(Action):
    """Bring a workload of `workloads/` to its steady state and leave it there."""

    workload: WorkloadName
    """A folder of `workloads/`."""
    set: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Parameters of its `workload.yaml` that are to differ."""
    timeout: Duration = 300.0
    """How long it may take."""

    def describe(self) -> str:
        settings = ", ".join(_written(self.set))
        return f"start {self.workload}" + (f" ({settings})" if settings else "")

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        try:
            measured = trial.start_workload(self.workload, self.set, Deadline(self.timeout))
        except WorkloadKilledError as error:
            return _killed(requested_ns, error)
        return StepResult(
            StepOutcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns(), values=measured
        )


def _written(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """`span=100GiB`, and of what is nested `options.rounds=1`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _written(value, f"{above}{name}.")
        else:
            yield f"{above}{name}={value}"


def _killed(requested_ns: int, error: WorkloadKilledError) -> StepResult:
    return StepResult(StepOutcome.KILLED, requested_ns=requested_ns, message=error.brief)


@ACTIONS.register("stop")
class Stop(Action):
    """End a workload; its memory is the guest's again."""

    workload: WorkloadName
    """A folder of `workloads/`."""
    timeout: Duration = 60.0
    """How long it may take."""

    def describe(self) -> str:
        return f"stop {self.workload}"

    def run(self, trial: StepContext) -> StepResult:
        requested_ns = trial.now_ns()
        try:
            measured = trial.stop_workload(self.workload, Deadline(self.timeout))
        except WorkloadKilledError as error:
            return _killed(requested_ns, error)
        return StepResult(
            StepOutcome.DONE, requested_ns=requested_ns, settled_ns=trial.now_ns(), values=measured
        )

"""What was done: the steps that the plan has for each trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.planned_steps import StepOfArms, planned_steps
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("scenario")
@dataclass(frozen=True)
class ScenarioSteps(Section):
    """In the order of the scenario. `timed`: the section of steps has the times of some trial."""

    order: ClassVar = 15
    title: ClassVar = "What each trial did"

    steps: tuple[StepOfArms, ...]
    timed: bool

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        steps = planned_steps(analysis.run.plan)
        return cls(steps, any(trial.steps for trial in analysis.trials)) if steps else None

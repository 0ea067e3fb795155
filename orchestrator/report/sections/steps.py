"""The steps of each trial, with their times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.arms import ArmView, StepView, TrialView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.section import SECTIONS, Section, colour, seconds_note


@dataclass(frozen=True)
class StepTable:
    """One trial. `origin` is when its first step began, in seconds of the trial; `later`: a step has bytes
    that came after it had settled."""

    id: str
    outcome: str
    colour: int
    steps: tuple[StepView, ...]
    origin: float
    later: bool


@SECTIONS.register("steps")
@dataclass(frozen=True)
class Steps(Section):
    """Arm by arm."""

    order: ClassVar = 200
    title: ClassVar = "Steps"

    trials: tuple[StepTable, ...]
    seconds: str

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        trials = tuple(_table(arm, trial) for arm in analysis.arms for trial in arm.trials if trial.steps)
        return cls(trials, seconds_note(analysis)) if trials else None


def _table(arm: ArmView, trial: TrialView) -> StepTable:
    return StepTable(
        id=clean(trial.summary.trial),
        outcome=trial.summary.outcome,
        colour=colour(arm),
        steps=trial.steps,
        origin=trial.origin,
        later=any(step.later_bytes is not None for step in trial.steps),
    )

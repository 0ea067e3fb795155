"""Trials that did not complete: what went wrong, what to do, and the end of the guest's console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.arms import TrialView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean, clean_block, console_tail
from orchestrator.report.section import SECTIONS, Section
from orchestrator.store import layout


@dataclass(frozen=True)
class Failed:
    """One trial."""

    id: str
    outcome: str
    error: str
    hint: str
    console: str


@SECTIONS.register("failed-trials")
@dataclass(frozen=True)
class FailedTrials(Section):
    """Arm by arm."""

    order: ClassVar = 70
    title: ClassVar = "Failed trials"

    trials: tuple[Failed, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        trials = tuple(_failed(trial) for trial in analysis.trials if trial.failed)
        return cls(trials) if trials else None


def _failed(trial: TrialView) -> Failed:
    folder = trial.folder
    console = clean_block(folder.ended.console_tail) if folder and folder.ended else ""
    return Failed(
        id=clean(trial.summary.trial),
        outcome=trial.summary.outcome,
        error=clean_block(trial.error),
        hint=clean(trial.hint, 400),
        console=console or (console_tail(folder.directory / layout.CONSOLE) if folder else ""),
    )

"""One figure for several trials of an arm: which of them count, and what stands for all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from orchestrator.headline import METRIC
from orchestrator.records.summary import TrialSummary


def shown(trials: Sequence[TrialSummary]) -> TrialSummary:
    """The trial that stands for the arm where only one can be shown: the first that completed."""
    return next((one for one in trials if one.outcome == "completed"), trials[0])


def counted(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Those that are not excluded; where all are, the one that is shown."""
    return [one for one in trials if not one.left_out] or [shown(trials)]


def with_metric(trials: Sequence[TrialSummary], metric: str) -> list[tuple[TrialSummary, float]]:
    """A metric in each trial that has it and counts; what must not be is read in all trials."""
    chosen = trials if METRIC[metric].worst else counted(trials)
    values = ((one, one.number(metric)) for one in chosen)
    return [(one, value) for one, value in values if value is not None]


def typical(trials: Sequence[TrialSummary], metric: str) -> float | None:
    """The median over trials; of what must not be, the largest. None where no trial has it."""
    values = [value for _, value in with_metric(trials, metric)]
    choose = max if METRIC[metric].worst else median
    return choose(values) if values else None

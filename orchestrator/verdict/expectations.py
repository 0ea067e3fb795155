"""Whether what a scenario expects came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.headline import METRIC
from orchestrator.scenario.expect import Expectation
from orchestrator.store import Run
from orchestrator.summary import TrialSummary
from orchestrator.units import format_duration, format_size
from orchestrator.verdict.comparison import Comparison
from orchestrator.verdict.figures import RunFigures, of_boots


@dataclass(frozen=True)
class ExpectationResult:
    """An expectation in words, what was found, and whether that meets it; `value` in the metric's unit."""

    arm: str
    expectation: str
    met: bool
    found: str
    value: float | None


class Judged(Protocol):
    """What expectations are judged by; `RunVerdicts` is one."""

    @property
    def run(self) -> Run: ...
    @property
    def summaries(self) -> Sequence[TrialSummary]: ...
    @property
    def figures(self) -> RunFigures: ...
    def against(self, base: str) -> Comparison: ...


def judge(of: Judged) -> list[ExpectationResult]:
    """Every expectation of a run's plan, in its order. What cannot be had is not met, and says why."""
    run = of.run
    try:
        expected = TypeAdapter(tuple[Expectation, ...]).validate_python(
            run.plan.expect, context={"resolved": True}
        )
    except ValidationError as error:
        raise BadInputError(
            f"{run.directory}: plan.json: `expect` cannot be read", details=str(error)
        ) from None
    return [_ended_so(run, of.summaries, one) if one.one_of else _judged(of, one) for one in expected]


def _ended_so(run: Run, summaries: Sequence[TrialSummary], expected: Expectation) -> ExpectationResult:
    """Whether each trial of an arm ended as it was to: one that is lost or never began did not."""
    by_trial = {one.trial: one for one in summaries}
    planned = [trial.id for trial in run.planned if trial.arm == expected.arm]
    found = Counter(_end(by_trial.get(trial), expected.metric) for trial in planned)
    words = f"{expected.metric} of {expected.arm} {' or '.join(expected.one_of or ())}"
    met = bool(planned) and set(found) <= set(expected.one_of or ())
    counts = ", ".join(f"{word} ({times} of {len(planned)} trials)" for word, times in found.most_common())
    return ExpectationResult(
        expected.arm, words, met=met, found=counts or "the arm has no trials", value=None
    )


def _end(trial: TrialSummary | None, metric: str) -> str:
    if trial is None:
        return "never began"
    if metric == "outcome":
        return trial.outcome
    return str(trial.metrics.get(metric, f"none, the trial ended with {trial.outcome}"))


def _judged(of: Judged, expected: Expectation) -> ExpectationResult:
    if expected.versus:
        value, why = _difference(of, expected, expected.versus)
    elif METRIC[expected.metric].worst:
        value, why = _worst([one for one in of.summaries if one.arm == expected.arm], expected)
    else:
        value, why = _median(of.figures, expected)
    words = _words(expected)
    if value is None:
        return ExpectationResult(expected.arm, words, met=False, found=why, value=None)
    low, high = expected.at_least, expected.at_most
    met = (low is None or value >= low) and (high is None or value <= high)
    found = f"{_written(value, expected.metric)}{why}"
    return ExpectationResult(expected.arm, words, met=met, found=found, value=value)


def _median(run: RunFigures, expected: Expectation) -> tuple[float | None, str]:
    arm = run.arm(expected.arm)
    values = arm.values(expected.metric) if arm else []
    if not values:
        return None, f"no trial of {expected.arm} that counts has a reading"
    boots = len(set(arm.boots(expected.metric))) if arm else 0
    return median(values), f" (median of {of_boots(len(values), boots)})" if len(values) > 1 else ""


def _worst(trials: Sequence[TrialSummary], expected: Expectation) -> tuple[float | None, str]:
    """The largest value in any trial. Where that is within the bound, a trial without one leaves it open."""
    read = [(value, one) for one in trials if (value := one.number(expected.metric)) is not None]
    worst, where = max(read, key=lambda pair: pair[0], default=(0.0, None))
    over = expected.at_most is not None and worst > expected.at_most
    unread = [one for one in trials if one.number(expected.metric) is None]
    if not over and (unread or not trials):
        if not trials:
            return None, f"no trial of {expected.arm} has begun"
        return None, f"not known in {unread[0].trial}: {unread[0].gaps.get(expected.metric, 'not measured')}"
    if len(trials) == 1 or where is None:
        return worst, ""
    return worst, f" (the worst of {len(read)} trials, {where.trial})"


def _difference(of: Judged, expected: Expectation, versus: str) -> tuple[float | None, str]:
    if not (of.figures.arm(expected.arm) and of.figures.arm(versus)):
        return None, f"{expected.arm} and {versus} have not both run"
    (pair,) = (one for one in of.against(versus).pairs if one.second.name == expected.arm)
    found = pair.metrics.get(expected.metric)
    if found is None:
        return None, pair.missing.get(expected.metric, "it is what was asked for, not what came of it")
    several = f" (mean of {found.trials} pairs of trials, {found.n} of boots)"
    return found.estimate, several if found.paired and found.trials > 1 else ""


def _words(expected: Expectation) -> str:
    about = f"{expected.metric} of {expected.arm}"
    about += f" minus that of {expected.versus}" if expected.versus else ""
    bounds = (("at least", expected.at_least), ("at most", expected.at_most))
    return f"{about} " + " and ".join(
        f"{word} {_written(value, expected.metric)}" for word, value in bounds if value is not None
    )


def _written(value: float, metric: str) -> str:
    unit = METRIC[metric].unit
    if unit == "bytes":
        return format_size(value)
    return format_duration(value) if unit == "seconds" and value >= 1 else f"{value:,.6g}{_suffix(unit)}"


def _suffix(unit: str) -> str:
    return {"seconds": " s", "1/s": " /s", "instructions": " instructions"}.get(unit, "")

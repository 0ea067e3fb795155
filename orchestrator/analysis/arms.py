"""What the report shows, read from a run folder: arms, their trials, their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.text import clean
from orchestrator.records.events import Event, StepBegin, StepEnd, of_kind
from orchestrator.store import UNFINISHED, Run, TrialFolder
from orchestrator.summary import TrialSummary, typical
from orchestrator.verdict.figures import of_boots

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[float, float]

_NANOSECONDS = 1e9


@dataclass(frozen=True)
class StepView:
    """A step of a trial; times in seconds since the trial began, None where it came to none.

    `curve` is the bytes that had moved, against seconds since the request, in the order of time; empty
    where the step recorded none. `later_bytes` came after it had settled (None: not watched).
    """

    number: int
    name: str
    action: str
    describe: str
    outcome: str
    began: float
    requested: float | None
    acknowledged: float | None
    settled: float | None
    requested_bytes: float | None
    achieved_bytes: float | None
    later_bytes: float | None
    ended: float | None
    curve: tuple[Point, ...]
    takes: bool = False
    """Whether such a step takes memory, of the guest or of its host."""

    @property
    def start(self) -> float:
        """When it was asked for, or when it began."""
        return self.began if self.requested is None else self.requested


@dataclass(frozen=True)
class TrialView:
    """A trial: its row of the summary and, where its folder is there, its files."""

    summary: TrialSummary
    folder: TrialFolder | None

    @cached_property
    def frame(self) -> pd.DataFrame | None:
        """Observations."""
        return self.folder.observations() if self.folder else None

    @cached_property
    def steps(self) -> tuple[StepView, ...]:
        """Steps in the order of beginning."""
        return steps_of(self.folder.events) if self.folder else ()

    @property
    def origin(self) -> float:
        """When the first step began, in seconds of the trial; 0 where none did."""
        return self.steps[0].start if self.steps else 0.0

    @property
    def failed(self) -> bool:
        """Whether it did not come to its planned end."""
        return self.summary.outcome != "completed"

    @property
    def error(self) -> str:
        """What went wrong, in the words of the trial: one line, and then perhaps more."""
        ended = self.folder.ended if self.folder else None
        if ended is None:
            return "the run ended before this trial did"
        return "\n".join(part for part in (ended.error, ended.details) if part)

    @property
    def hint(self) -> str:
        """What to do about it."""
        ended = self.folder.ended if self.folder else None
        return ended.hint if ended else ""


@dataclass(frozen=True)
class ArmView:
    """An arm and its trials. `index` picks its colour."""

    index: int
    name: str
    differs: Mapping[str, str]
    trials: tuple[TrialView, ...]

    @cached_property
    def shown(self) -> TrialView:
        """The trial that stands for the arm where only one can be shown: the first that completed."""
        return self._view(typical.shown(self._summaries))

    @property
    def of_one(self) -> str:
        """` (trial 6.12-01)`, for figures of the trial that is shown; empty where there is no other."""
        return f" (trial {clean(self.shown.summary.trial, 40)})" if len(self.trials) > 1 else ""

    @cached_property
    def counted(self) -> tuple[TrialView, ...]:
        """Trials that are not excluded; where all are, the one that is shown."""
        return tuple(self._view(one) for one in typical.counted(self._summaries))

    def numbers(self, metric: str) -> list[float]:
        """A metric in each trial that has it and counts; where none counts, in the one that is shown.

        Integrity metrics are read in all trials.
        """
        return [value for _, value in typical.with_metric(self._summaries, metric)]

    def boots(self, metric: str) -> list[str]:
        """The boot of each of the `numbers`: trials from one saved boot have the same."""
        return [one.boot for one, _ in typical.with_metric(self._summaries, metric)]

    @property
    def of_boots(self) -> str:
        """`8 trials of 5 boots`: those that count."""
        return of_trials(self.counted)

    def typical(self, metric: str) -> float | None:
        """The median over trials; of what must not be, the largest."""
        return typical.typical(self._summaries, metric)

    @property
    def _summaries(self) -> list[TrialSummary]:
        return [trial.summary for trial in self.trials]

    def _view(self, summary: TrialSummary) -> TrialView:
        return next(trial for trial in self.trials if trial.summary is summary)


def of_trials(trials: Sequence[TrialView]) -> str:
    """`8 trials of 5 boots`."""
    return of_boots(len(trials), len({one.summary.boot for one in trials}))


@dataclass(frozen=True)
class RunView:
    """A run as the report shows it."""

    run: Run
    arms: tuple[ArmView, ...]

    @property
    def trials(self) -> list[TrialView]:
        """All trials that have begun, arm by arm."""
        return [trial for arm in self.arms for trial in arm.trials]


def view_run(run: Run, summaries: Sequence[TrialSummary]) -> RunView:
    """Group the trials of a run by arm, in the order in which the scenario names the arms."""
    folders = {trial.id: trial for trial in run.trials}
    by_arm: dict[str, list[TrialSummary]] = {name: [] for name in run.arm_names}
    for summary in summaries:
        by_arm.setdefault(summary.arm, []).append(summary)
    arms = tuple(
        ArmView(
            index=index,
            name=name,
            differs=members[0].differs,
            trials=tuple(TrialView(member, folders.get(member.trial)) for member in members),
        )
        for index, (name, members) in enumerate(item for item in by_arm.items() if item[1])
    )
    return RunView(run, arms)


def steps_of(events: Sequence[Event]) -> tuple[StepView, ...]:
    """Pair each `step.begin` with its `step.end`; a step without one is `unfinished`."""
    ends: dict[int, list[StepEnd]] = {}
    for end in of_kind(events, StepEnd):
        ends.setdefault(end.step, []).append(end)
    steps: list[StepView] = []
    for begin in of_kind(events, StepBegin):
        waiting = ends.get(begin.step, [])
        steps.append(_step(len(steps) + 1, begin, waiting.pop(0) if waiting else None))
    return tuple(steps)


def _step(number: int, begin: StepBegin, end: StepEnd | None) -> StepView:
    return StepView(
        number=number,
        name=str(begin.step),
        action=begin.action,
        describe=begin.describe or begin.action,
        outcome=end.outcome if end else UNFINISHED,
        began=begin.t_ns / _NANOSECONDS,
        requested=_seconds(end.requested_ns) if end else None,
        acknowledged=_seconds(end.acknowledged_ns) if end else None,
        settled=_seconds(end.settled_ns) if end else None,
        requested_bytes=end.value("requested_bytes") if end else None,
        achieved_bytes=end.value("achieved_bytes") if end else None,
        later_bytes=end.value("later_bytes") if end else None,
        ended=end.t_ns / _NANOSECONDS if end else None,
        curve=end.curve if end else (),
        takes=end.takes if end else False,
    )


def _seconds(t_ns: int | None) -> float | None:
    return None if t_ns is None else t_ns / _NANOSECONDS


def series(frame: pd.DataFrame, source: str, name: str) -> list[Point]:
    """(seconds, value) of one observation, in the order of time, without its gaps."""
    rows = frame[(frame["source"] == source) & (frame["name"] == name)].dropna(subset=["value"])
    rows = rows.sort_values("t_ns", kind="stable")
    return [
        (t_ns / _NANOSECONDS, float(value)) for t_ns, value in zip(rows["t_ns"], rows["value"], strict=True)
    ]


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:  # any JSON
    """Nested JSON as `a.b` and text, in the order in which it stands."""
    if isinstance(value, Mapping):
        return [
            pair for key, item in value.items() for pair in flat(item, f"{prefix}.{key}" if prefix else key)
        ]
    if isinstance(value, list):
        return [(prefix, " ".join(str(item) for item in value))]
    return [(prefix, "" if value is None else str(value))]

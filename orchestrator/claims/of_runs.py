"""Evidence in run folders: which run, arm and metric, or column of a table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from orchestrator.claims.committed import Committed
from orchestrator.claims.evidence import Evidence, Sampled, Source
from orchestrator.claims.figure import Figure, NoFigureError, Sample, Spread
from orchestrator.errors import BadInputError
from orchestrator.model.frame_class import FrameClass
from orchestrator.observation import Origin
from orchestrator.records.summary import BlameResult, PolicyResult, SnapshotResult, TrialSummary
from orchestrator.stats import Significance
from orchestrator.summary import METRIC
from orchestrator.summary.moments import column
from orchestrator.units import parse_size

Row = TypeVar("Row")


@dataclass(frozen=True)
class OfArm(Sampled):
    """Read in the trials of an arm."""

    run: str
    arm: str

    @property
    def origin(self) -> Origin:
        return Origin.MEASURED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source(self.run, self.arm),)


@dataclass(frozen=True)
class Headline(OfArm):
    """A metric of summary.csv."""

    metric: str

    def __post_init__(self) -> None:
        _must_be_metric(self.metric)

    @property
    def origin(self) -> Origin:
        return _origin_of(self.metric)

    def sample(self, committed: Committed) -> Sample:
        return committed.run(self.run).by_boot(self.arm, lambda trial: trial.number(self.metric))


@dataclass(frozen=True)
class AtSnapshot(OfArm):
    """A column of snapshots.csv."""

    snapshot: str
    column: str

    def __post_init__(self) -> None:
        _must_be_column(SnapshotResult, self.column)

    def sample(self, committed: Committed) -> Sample:
        return committed.run(self.run).by_boot(
            self.arm,
            lambda trial: _one(trial.snapshots, self.column, snapshot=self.snapshot),
        )


@dataclass(frozen=True)
class AtMoment(OfArm):
    """A column of moments.csv."""

    moment: str
    column: str

    def __post_init__(self) -> None:
        column(self.column)

    @property
    def origin(self) -> Origin:
        return column(self.column).series.origin

    def sample(self, committed: Committed) -> Sample:
        def reading(trial: TrialSummary) -> float | None:
            found = _only(trial.moments, moment=self.moment)
            return column(self.column).of(found) if found else None

        return committed.run(self.run).by_boot(self.arm, reading)


@dataclass(frozen=True)
class Blamed(OfArm):
    """A count of blame.csv for a class of frames, over all regions: 0 in a snapshot without any."""

    snapshot: str
    frame_class: FrameClass
    column: str

    def __post_init__(self) -> None:
        _must_be_column(BlameResult, self.column)

    def sample(self, committed: Committed) -> Sample:
        def count(trial: Any) -> float | None:
            rows = [row for row in trial.blame if row.snapshot == self.snapshot and not row.table]
            name = self.frame_class.name.lower()
            found = (getattr(row, self.column) or 0 for row in rows if row.frame_class == name)
            return float(sum(found)) if rows else None

        return committed.run(self.run).by_boot(self.arm, count)


@dataclass(frozen=True)
class OfPolicy(OfArm):
    """A column of policies.csv: what a policy would have done."""

    snapshot: str
    policy: str
    column: str

    def __post_init__(self) -> None:
        _must_be_column(PolicyResult, self.column)

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    def sample(self, committed: Committed) -> Sample:
        return committed.run(self.run).by_boot(
            self.arm,
            lambda trial: _one(trial.policies, self.column, snapshot=self.snapshot, policy=self.policy),
        )


@dataclass(frozen=True)
class SecondLevelFreed(OfArm):
    """Tables of second_level_policies.csv that a policy would have freed of KVM's."""

    snapshot: str
    policy: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    def sample(self, committed: Committed) -> Sample:
        return committed.run(self.run).by_boot(
            self.arm,
            lambda trial: _one(
                trial.second_level, "tables_freed", snapshot=self.snapshot, policy=self.policy
            ),
        )


@dataclass(frozen=True)
class WorkloadSize(OfArm):
    """A size that the plan gives a workload: what was asked for, the same in each boot."""

    workload: str
    setting: str

    def sample(self, committed: Committed) -> Sample:
        run = committed.run(self.run)
        planned = next(trial for trial in run.run.plan.trials if trial.arm == self.arm)
        for step in planned.steps or ():
            params: Any = step.get("params", {}) if isinstance(step, dict) else {}
            settings = params.get("set") or {}
            if params.get("workload") == self.workload and self.setting in settings:
                size = float(parse_size(settings[self.setting]))
                boots = run.by_boot(self.arm, lambda _: 0.0).values
                return Sample(dict.fromkeys(boots, size), of_boots=True)
        raise BadInputError(f"{run.run.directory}: no step sets {self.setting} of {self.workload}")


@dataclass(frozen=True)
class Compared(Evidence):
    """A metric in `arm` less that in `base`, as `orchestrator compare` has it; `relative`: to the latter."""

    run: str
    base: str
    arm: str
    metric: str
    relative: bool = False

    def __post_init__(self) -> None:
        _must_be_metric(self.metric)

    @property
    def origin(self) -> Origin:
        return _origin_of(self.metric)

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source(self.run, self.base), Source(self.run, self.arm))

    def figure(self, committed: Committed) -> Figure:
        run = committed.run(self.run)
        for arm in (self.base, self.arm):
            run.trials(arm)
        (pair,) = (pair for pair in run.compared(self.base).pairs if pair.second.name == self.arm)
        if self.metric not in pair.metrics:
            raise NoFigureError(pair.missing[self.metric])
        found = pair.metrics[self.metric]
        scale = 1.0
        if self.relative:
            values = pair.first.values(self.metric)
            scale = abs(sum(values) / len(values))
            if not scale:
                raise NoFigureError(f"{self.metric} is 0 in arm {self.base}: nothing to relate to")
        if found.significance is Significance.IDENTICAL:
            return Figure(0.0, 0.0, 0.0, Spread.INTERVAL, found.n)
        if found.interval is None:
            return Figure(found.estimate / scale, None, None, Spread.NONE, found.n)
        low, high = found.interval.low / scale, found.interval.high / scale
        return Figure(found.estimate / scale, low, high, Spread.INTERVAL, found.n)


def _must_be_metric(name: str) -> None:
    if name not in METRIC:
        raise ValueError(f"there is no metric {name!r}")


def _origin_of(metric: str) -> Origin:
    return Origin.PREDICTED if METRIC[metric].predicted else Origin.MEASURED


def _must_be_column(kind: type[Any], column: str) -> None:
    if column not in {one.name for one in fields(kind)}:
        raise ValueError(f"{kind.__name__} has no column {column!r}")


def _one(rows: tuple[Any, ...], column: str, **key: str) -> float | None:
    """The column of the only row with that key; None where there is no such row, or it was not read."""
    row = _only(rows, **key)
    value = None if row is None else getattr(row, column)
    return None if value is None else float(value)


def _only(rows: tuple[Row, ...], **key: str) -> Row | None:
    """The only row with that key; None where there is none."""
    found = [row for row in rows if all(getattr(row, name) == value for name, value in key.items())]
    if len(found) > 1:
        raise BadInputError(f"{key} selects several rows of a trial")
    return found[0] if found else None

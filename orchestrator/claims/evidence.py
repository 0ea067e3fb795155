"""References to committed results, typed: which run, arm and metric, or which document of a model."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from orchestrator.claims.committed import Committed
from orchestrator.claims.figure import Figure, NoFigureError, Sample, Spread
from orchestrator.errors import BadInputError
from orchestrator.model.frame_class import FrameClass
from orchestrator.observation import Origin
from orchestrator.records.summary import BlameResult, Moment, PolicyResult, SnapshotResult
from orchestrator.stats import Significance
from orchestrator.summary import METRIC
from orchestrator.units import parse_size

_PREDICTED: Final = frozenset({"needed_bytes"})  # of moments.csv
_ENDS: Final = ("low", "typical", "high")


@dataclass(frozen=True)
class Source:
    """A committed result, and the arm of it that is read, or in guests.json the synthetic guest."""

    result: str
    arm: str = ""
    guest: str = ""

    @property
    def command(self) -> str:
        """What makes it again."""
        if self.arm:
            return f"orchestrator run scenarios/{self.result}.yaml"
        if self.result.startswith("overcommit/"):
            return f"orchestrator model overcommit scenarios/{self.result}.yaml"
        return f"orchestrator model guest {self.guest}"


class Evidence(ABC):
    """What a part of a claim is judged by."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Measured, predicted or modelled."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The results that it reads."""
        return ()

    @abstractmethod
    def figure(self, committed: Committed) -> Figure:
        """Raises NoFigureError where there is none, and BadInputError where the reference is wrong."""


class Sampled(Evidence):
    """Evidence with a value for each boot, or for each end of a model's range."""

    @abstractmethod
    def sample(self, committed: Committed) -> Sample:
        """Raises as `figure` does."""

    def figure(self, committed: Committed) -> Figure:
        return self.sample(committed).figure()


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
        if self.metric not in METRIC:
            raise ValueError(f"there is no metric {self.metric!r}")

    @property
    def origin(self) -> Origin:
        return Origin.PREDICTED if METRIC[self.metric].predicted else Origin.MEASURED

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
        _must_be_column(Moment, self.column)

    @property
    def origin(self) -> Origin:
        return Origin.PREDICTED if self.column in _PREDICTED else Origin.MEASURED

    def sample(self, committed: Committed) -> Sample:
        return committed.run(self.run).by_boot(
            self.arm, lambda trial: _one(trial.moments, self.column, moment=self.moment)
        )


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
        if self.metric not in METRIC:
            raise ValueError(f"there is no metric {self.metric!r}")

    @property
    def origin(self) -> Origin:
        return Origin.PREDICTED if METRIC[self.metric].predicted else Origin.MEASURED

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


@dataclass(frozen=True)
class OvercommitFigure(Sampled):
    """What `model overcommit` said of a policy with an action: `killed`, `fit`, `table_bytes_peak`, or
    `added.mean` and `added.p99` in seconds."""

    file: str
    policy: str
    action: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source(f"overcommit/{self.file}"),)

    def sample(self, committed: Committed) -> Sample:
        document = committed.document(f"overcommit/{self.file}")
        rows = [
            one for one in document["answers"] if (one["policy"], one["action"]) == (self.policy, self.action)
        ]
        if len(rows) != 1:
            raise BadInputError(
                f"results/reference/overcommit/{self.file}.json has {len(rows)} rows of policy "
                f"{self.policy} with {self.action}"
            )
        found = _at(rows[0], self.key)
        return Sample({end: float(found[end]) for end in _ENDS}, of_boots=False)


@dataclass(frozen=True)
class GuestBytes(Sampled):
    """Bytes of the page tables of a synthetic guest: a key of guests.json."""

    guest: str
    key: str

    @property
    def origin(self) -> Origin:
        return Origin.MODELLED

    @property
    def sources(self) -> tuple[Source, ...]:
        return (Source("guests", guest=self.guest),)

    def sample(self, committed: Committed) -> Sample:
        found = _at(committed.document("guests"), f"{self.guest}.{self.key}")
        return Sample({"": float(found)}, of_boots=False)


@dataclass(frozen=True)
class _OfTwo(Sampled):
    first: Sampled
    second: Sampled

    @property
    def origin(self) -> Origin:
        return weakest(self.first.origin, self.second.origin)

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(dict.fromkeys((*self.first.sources, *self.second.sources)))


@dataclass(frozen=True)
class Ratio(_OfTwo):
    """The first, as a share of the second: boot by boot, or of ranges the widest."""

    def sample(self, committed: Committed) -> Sample:
        second = self.second.sample(committed)
        if 0 in second.values.values():
            raise NoFigureError("what it would be a share of is 0")
        return self.first.sample(committed).combined(second, operator.truediv)


@dataclass(frozen=True)
class AtSameCosts(_OfTwo):
    """The ratio of two figures of a model at the low end, the typical one and the high end of its costs."""

    def sample(self, committed: Committed) -> Sample:
        found = self.first.sample(committed)
        return found.combined(self.second.sample(committed), operator.truediv, ends=True)


@dataclass(frozen=True)
class Less(_OfTwo):
    """The first less the second, likewise."""

    def sample(self, committed: Committed) -> Sample:
        return self.first.sample(committed).combined(self.second.sample(committed), operator.sub)


@dataclass(frozen=True)
class Times(Sampled):
    """Evidence times a constant, such as the bytes of a table."""

    of: Sampled
    factor: float

    @property
    def origin(self) -> Origin:
        return self.of.origin

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.of.sources

    def sample(self, committed: Committed) -> Sample:
        found = self.of.sample(committed)
        return Sample({key: value * self.factor for key, value in found.values.items()}, found.of_boots)


@dataclass(frozen=True)
class Awaited(Evidence):
    """A result that is still to be committed: until then nothing is tested, after that its figure is to be
    named here. `run` is the folder of results/reference, and the scenario's name."""

    run: str
    kind: Origin = Origin.MEASURED

    @property
    def origin(self) -> Origin:
        return self.kind

    def figure(self, committed: Committed) -> Figure:
        if committed.has(self.run):
            raise BadInputError(
                f"results/reference/{self.run} is there, and a claim does not yet name a figure of it",
                hint="replace its Awaited evidence in orchestrator/claims/talk",
            )
        raise NoFigureError(f"no committed result in results/reference/{self.run}")


@dataclass(frozen=True)
class Untestable(Evidence):
    """Why no result of this testbed can be evidence."""

    reason: str

    @property
    def origin(self) -> Origin:
        return Origin.MEASURED

    def figure(self, committed: Committed) -> Figure:  # noqa: ARG002  # as the others
        raise NoFigureError(self.reason, cannot=True)


def weakest(*origins: Origin) -> Origin:
    """The origin of what is computed from several: a model's word makes all of it modelled."""
    order = list(Origin)
    return max(origins, key=order.index)


def _must_be_column(kind: type[Any], column: str) -> None:
    if column not in {one.name for one in fields(kind)}:
        raise ValueError(f"{kind.__name__} has no column {column!r}")


def _one(rows: tuple[Any, ...], column: str, **key: str) -> float | None:
    """The column of the only row with that key; None where there is no such row, or it was not read."""
    found = [row for row in rows if all(getattr(row, name) == value for name, value in key.items())]
    if len(found) > 1:
        raise BadInputError(f"{key} selects several rows of a trial")
    value = getattr(found[0], column) if found else None
    return None if value is None else float(value)


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise BadInputError(
                f"a document of the model has no {path}", hint="python tests/unit/modelled.py"
            )
        value = value[key]
    return value

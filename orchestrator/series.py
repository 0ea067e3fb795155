"""A series: what a probe reads under one name, declared once. Metrics, charts, moments and docs follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from orchestrator.metric import Better, Metric, Unit
from orchestrator.observation import Origin

_OF_EACH_MOMENT: Final = frozenset({"run", "trial", "moment", "seconds"})  # columns of moments.csv


@dataclass(frozen=True)
class Headline:
    """The metric that stands for a series in summary.csv: its last value in a trial, its largest, or, of a
    counter that began before the trial, by how much it has grown.

    The metric's unit and origin are those of the series; the rest is as `Metric` has it.
    """

    metric: str
    choice: Literal["last", "largest", "growth"]
    better: Better = ""
    resolution: float = 0.0
    shifts: bool = False
    worst: bool = False

    def of(self, values: Sequence[float]) -> float | None:
        """The figure of a trial; None where nothing was read."""
        if not values:
            return None
        if self.choice == "growth":
            return values[-1] - values[0]
        return values[-1] if self.choice == "last" else max(values)


@dataclass(frozen=True)
class Chart:
    """A section of the page that shows series over time, a panel for each arm.

    `name` is its anchor; `lead` explains what is drawn; sections stand in the page by `order`. One that
    `needs_moments` is shown only where KVM's tables were read at a moment with a name.
    """

    name: str
    title: str
    lead: str
    order: int
    needs_moments: bool = False


@dataclass(frozen=True)
class Line:
    """How a series is drawn, and in which chart. All lines of a chart have one unit."""

    chart: Chart
    label: str
    dashed: bool = False


@dataclass(frozen=True)
class Series:
    """What a probe reads under `name`, in which `*` stands for any text where names are open-ended.

    `unit` and `origin` are those of all its observations; `meaning` is one line for docs/run-folder.md.
    `moment` is its column of moments.csv, if it is read at moments with a name. A series that is
    `of_all_guests` counts KVM's tables of the whole host: what other guests had before is taken off
    (summary.second_level). `memory_bytes` is how much of the guest's memory one of its unit takes, 0 for
    what takes none: a guest that says more than it has is not believed.
    """

    name: str
    unit: Unit
    meaning: str
    origin: Origin = Origin.MEASURED
    headlines: tuple[Headline, ...] = ()
    line: Line | None = None
    moment: str = ""
    of_all_guests: bool = False
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if self.is_pattern and (self.headlines or self.line or self.moment):
            raise ValueError(f"{self.name}: a metric, a line or a moment is of one name")
        if self.moment in _OF_EACH_MOMENT:
            raise ValueError(f"{self.name}: each moment has a column {self.moment!r} of its own")

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for many names."""
        return "*" in self.name

    def covers(self, name: str) -> bool:
        """Whether a reading of that name belongs to it."""
        return fnmatchcase(name, self.name)

    @property
    def chart(self) -> Chart | None:
        """Where it is drawn; None where it is not."""
        return self.line.chart if self.line else None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its headline metrics."""
        predicted = self.origin is Origin.PREDICTED
        return tuple(
            Metric(
                one.metric,
                self.unit,
                one.better,
                one.resolution,
                predicted=predicted,
                worst=one.worst,
                shifts=one.shifts,
            )
            for one in self.headlines
        )

"""What a headline metric is: its unit, which way is better, and how finely it can be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Better: TypeAlias = Literal["lower", "higher", ""]
Unit: TypeAlias = Literal["bytes", "count", "seconds", "1/s", "instructions"]

COST_PHASES: Final = ("touch", "discard", "touch_again", "fork", "mremap", "munmap")
"""What a round of the workload page-table-bench does to its mapping, in order; each is a metric."""


def is_time(unit: str) -> bool:
    """Whether it is the unit of a time or a rate."""
    return unit in {"seconds", "1/s"}


@dataclass(frozen=True)
class Metric:
    """One metric of summary.csv.

    `unit` is `bytes`, `count`, `seconds`, `1/s`, `instructions`, or empty for a word. `better` is empty where
    neither way is. `resolution` is one unit of what is counted: spreads below it say nothing. Of a metric
    `by_block` it is the smallest that there is: that of an arm follows from what it unplugs by
    (summary.resolution).
    `given` metrics are what was asked for, or how much was looked at, not what came of it. A `worst` metric
    counts what must not be: it stands for an arm with its largest value in any trial, also one that is in no
    average. One that a restore `shifts` is not the same in guests that start from saved memory as in those
    that boot (results/reference/boots).
    """

    name: str
    unit: Unit | Literal[""]
    better: Better = ""
    resolution: float = 0.0
    given: bool = False
    predicted: bool = False
    by_block: bool = False
    worst: bool = False
    shifts: bool = False

    @property
    def timed(self) -> bool:
        """Whether it means nothing where guests take each other's processor time."""
        return is_time(self.unit)

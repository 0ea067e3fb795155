"""The answer of a sweep: which policies are on the trade-off front of each point, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, Final

from orchestrator.analysis.text import count, seconds, size
from orchestrator.store.sweep_file import SweepFacts, SweepRow

SEED: Final = "seed"
_BYTES: Final = frozenset(
    {"memory", "reserved", "swap", "other_node", "size", "budget_bytes", "other_node_bytes"}
)
_SECONDS: Final = frozenset({"after", "arrive_every", "lasts", "tick"})


@dataclass(frozen=True)
class Measure:
    """A figure of a row, in words; `sign` makes less of it better."""

    column: str
    title: str
    write: Callable[[float], str]
    sign: int = 1

    def of(self, row: SweepRow) -> float:
        return float(row[self.column])


FIT = Measure("fit_typical", "guests that fit", lambda value: f"{value:g}", -1)
KILLED = Measure("killed_typical", "OOM kills", lambda value: f"{value:g}")
P99 = Measure("added_p99_seconds_typical", "added to a touch, p99", seconds)
MEAN = Measure("added_mean_seconds_typical", "added to a touch, mean", seconds)
PEAK = Measure("peak_bytes", "tables at peak", size)
MISSES = Measure("misses", "misses", count)


@dataclass(frozen=True)
class Question:
    """What counts: `across` against `up` is the trade-off, `mapped` is what heat maps show."""

    across: Measure
    up: Measure
    also: tuple[Measure, ...]
    mapped: Measure

    @property
    def compared(self) -> tuple[Measure, ...]:
        """By what one is at least as good as another."""
        return (self.across, self.up, *self.also)


QUESTIONS: Final[Mapping[str, Question]] = {
    "overcommit": Question(FIT, P99, (KILLED,), FIT),
    "compare": Question(PEAK, MEAN, (), MISSES),
}


@dataclass(frozen=True)
class SweepView:
    """A table, looked at by point and by choice of policy and action."""

    facts: SweepFacts
    rows: Sequence[SweepRow]

    @property
    def question(self) -> Question:
        return QUESTIONS[self.facts.question]

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Policies with their actions, in the order of the table."""
        return tuple(dict.fromkeys(map(choice_of, self.rows)))

    @cached_property
    def points(self) -> dict[int, list[SweepRow]]:
        """The rows of each point."""
        found: dict[int, list[SweepRow]] = {}
        for row in self.rows:
            found.setdefault(int(row["point"]), []).append(row)
        return found

    @cached_property
    def front(self) -> frozenset[tuple[int, str]]:
        """Point and choice where no other of the point is as good in all that counts and better in some."""
        return frozenset(
            (point, choice_of(row)) for point, rows in self.points.items() for row in self._undominated(rows)
        )

    @cached_property
    def times_on_front(self) -> dict[str, int]:
        """At how many points each choice is on the front."""
        return {choice: sum(at == choice for _, at in self.front) for choice in self.choices}

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """Axes with more than one value, apart from the seed: what is shown is the median of its values."""
        return tuple(axis for axis in self.facts.axes if axis != SEED and len(self.values(axis)) > 1)

    def values(self, axis: str) -> list[Any]:
        """What an axis takes, in the order of the file."""
        return list(dict.fromkeys(row[axis] for row in self.rows))

    def span(self, choice: str, measure: Measure) -> str:
        """From the lowest to the highest over all points, in words."""
        found = [measure.of(row) for row in self.rows if choice_of(row) == choice]
        low, high = measure.write(min(found)), measure.write(max(found))
        return low if low == high else f"{low} to {high}"

    def sentences(self) -> Iterator[str]:
        """The answer in words."""
        yield f"Points: {count(len(self.points))}; policies with actions at each: {len(self.choices)}."
        ordered = sorted(self.choices, key=lambda choice: -self.times_on_front[choice])
        best = [
            f"{choice} at {self.times_on_front[choice]}" for choice in ordered if self.times_on_front[choice]
        ]
        yield f"On the trade-off front: {', '.join(best)}."
        never = [choice for choice in self.choices if not self.times_on_front[choice]]
        if never:
            yield f"Never: {', '.join(never)}."

    def _undominated(self, rows: Sequence[SweepRow]) -> Iterator[SweepRow]:
        keys = [tuple(_rounded(one.of(row)) * one.sign for one in self.question.compared) for row in rows]
        for row, mine in zip(rows, keys, strict=True):
            if not any(
                theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)) for theirs in keys
            ):
                yield row


def choice_of(row: SweepRow) -> str:
    """`lru, swap`; without the action where the policy takes no table in use."""
    return f"{row['policy']}, {row['action']}" if row["action"] else str(row["policy"])


def middle(rows: Sequence[SweepRow], measure: Measure) -> float:
    """The median over rows: over the seeds of a point."""
    return median(measure.of(row) for row in rows)


def shown(axis: str, value: object) -> str:
    """A value of an axis, in its unit."""
    last = axis.rpartition(".")[2]
    if value is None:
        return "without bound"
    if isinstance(value, int | float) and last in _BYTES:
        return size(value)
    if isinstance(value, int | float) and last in _SECONDS:
        return seconds(value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _rounded(value: float) -> float:
    """To two digits that count, for times; costs are not known to more. Counts are below that or exact."""
    return float(f"{value:.2g}") if 0 < abs(value) < 1 else value

"""A figure of a claim: what it is, how far it spreads, and over what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from orchestrator.analysis.text import counted, seconds, size
from orchestrator.stats import of_few


class NoFigureError(Exception):
    """Evidence that is not there. `cannot`: and that no result of this testbed could be."""

    def __init__(self, reason: str, *, cannot: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cannot = cannot


class Spread(StrEnum):
    """What the two ends of a figure are."""

    INTERVAL = "95 % interval"
    BOOTS = "range"
    COSTS = "range over seeds and costs"
    CPUS = "range over CPUs, of which one is typical"
    EXACT = "computed"
    NONE = "no interval"


class Unit(StrEnum):
    """What a figure is counted in."""

    BYTES = "bytes"
    COUNT = "count"
    SECONDS = "seconds"
    SHARE = "share"
    RATIO = "ratio"
    MIB_PER_GIB = "MiB per GiB"


@dataclass(frozen=True)
class Figure:
    """An estimate with its ends; None where there are none. `boots` is None where no guest booted for it."""

    estimate: float
    low: float | None
    high: float | None
    spread: Spread
    boots: int | None = None


@dataclass(frozen=True)
class Sample:
    """Values by boot; of a model, by the end of its range (`low`, `typical`, `high`), or one alone."""

    values: Mapping[str, float]
    of_boots: bool
    ends: Spread = Spread.COSTS
    """What the ends of a model's range are."""

    def figure(self) -> Figure:
        """Of boots Student's interval of their mean, or their range where they are too few."""
        values = np.array(list(self.values.values()), dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        if not self.of_boots:
            if len(values) == 1:
                return Figure(low, low, high, Spread.EXACT)
            return Figure(self.values["typical"], low, high, self.ends)
        mean = float(values.mean())
        interval = of_few(values, range(len(values)))
        if interval is None:
            return Figure(mean, low, high, Spread.BOOTS, len(values))
        return Figure(mean, interval.low, interval.high, Spread.INTERVAL, len(values))

    def combined(self, other: Sample, by: Callable[[float, float], float], *, ends: bool = False) -> Sample:
        """Boot by boot; of two ranges the widest that they allow, or with `ends` low by low and high by high.

        `by` rises or falls with each. Raises NoFigureError where they have no boot in common.
        """
        common = [key for key in self.values if key in other.values]
        if self.of_boots != other.of_boots or not common:
            raise NoFigureError("its two figures are not of the same boots")
        found = {key: by(self.values[key], other.values[key]) for key in common}
        if not (self.of_boots or ends or len(common) == 1):
            corners = [by(one, two) for one in self.values.values() for two in other.values.values()]
            found |= {"low": min(corners), "high": max(corners)}
        return Sample(found, self.of_boots)


_FORMATS: Final[Mapping[Unit, Callable[[float], str]]] = {
    Unit.BYTES: size,
    Unit.COUNT: lambda value: f"{value:,.1f}",
    Unit.SECONDS: seconds,
    Unit.SHARE: lambda value: f"{100 * value:,.1f} %",
    Unit.RATIO: lambda value: f"{value:,.2f}",
    Unit.MIB_PER_GIB: lambda value: f"{value:,.2f} MiB per GiB",
}


def in_unit(value: float, unit: Unit) -> str:
    """A value as people read it; what rounds to nothing has no sign."""
    text = _FORMATS[unit](value)
    return text if text.strip("-0., %") else text.removeprefix("-")


def figure_words(figure: Figure, unit: Unit) -> str:
    """`101.7 [101.6, 101.8] MiB`."""
    words = in_unit(figure.estimate, unit)
    if figure.low is None or figure.high is None:
        return words
    if figure.low == figure.high:  # an interval without width would claim that it cannot differ
        return words
    low, high = (in_unit(end, unit) for end in (figure.low, figure.high))
    numbers, units = zip(*(part.partition(" ")[::2] for part in (words, low, high)), strict=True)
    if len(set(units)) == 1:
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}] {units[0]}".rstrip()
    return f"{words} [{low}, {high}]"


def spread_words(figure: Figure) -> str:
    """What the ends are, and of how many boots."""
    if figure.boots is None:
        return figure.spread.value
    boots = counted(figure.boots, "boot")
    if figure.low is not None and figure.low == figure.high:
        return f"each of {boots}"
    few = ", too few for an interval" if figure.spread in {Spread.BOOTS, Spread.NONE} else ""
    return f"{figure.spread.value} over {boots}{few}"

"""What was read at the moments that a scenario names: a column for each series that has one there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from orchestrator.analysis.arm_table import Cell
from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.text import clean, quantity
from orchestrator.observation import Origin
from orchestrator.records.summary import Moment, TrialSummary
from orchestrator.summary.moments import COLUMNS, Column

NO_READING: Final = "no trial of the arm that counts has read it"


@dataclass(frozen=True)
class Head:
    """A column: its name and what is read in it. `origin` is empty where that is measured."""

    name: str
    meaning: str
    origin: str


@dataclass(frozen=True)
class ReadingsRow:
    """An arm at a moment, over its trials; `first` of its arm. `cells` are medians, by column."""

    first: bool
    arm: str
    colour: int
    moment: str
    trials: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MomentTable:
    """Readings at moments; no rows where there are none. `missing`: columns without any reading, and why."""

    heads: tuple[Head, ...]
    rows: tuple[ReadingsRow, ...]
    missing: tuple[tuple[str, str], ...]


def moment_table(view: RunView) -> MomentTable:
    """The table of all arms."""
    trials = [summary for arm in view.arms for summary in counted(arm)]
    moments = [one for summary in trials for one in summary.moments]
    read = [one for one in COLUMNS.values() if any(one.of(moment) is not None for moment in moments)]
    if not read:
        return MomentTable((), (), ())
    reasons = {gap.reading: clean(gap.reason, 200) for summary in trials for gap in summary.moment_gaps}
    return MomentTable(
        tuple(_head(one) for one in read),
        tuple(row for arm in view.arms for row in _rows(arm, read)),
        tuple((name, reasons.get(name, NO_READING)) for name, one in COLUMNS.items() if one not in read),
    )


def counted(arm: ArmView) -> list[TrialSummary]:
    """The trials of an arm that count."""
    return [trial.summary for trial in arm.trials if not trial.summary.left_out]


def by_moment(arm: ArmView) -> dict[str, list[tuple[str, Moment]]]:
    """The moments of an arm's trials that count by their names, each with the boot that it is of."""
    found: dict[str, list[tuple[str, Moment]]] = {}
    for summary in counted(arm):
        for one in summary.moments:
            found.setdefault(one.moment, []).append((summary.boot, one))
    return found


def why_missing(arm: ArmView, moment: str) -> dict[str, str]:
    """Why readings at a moment of an arm are missing in trials that count, by their columns."""
    return {
        gap.reading: clean(gap.reason, 200)
        for summary in counted(arm)
        for gap in summary.moment_gaps
        if gap.moment == moment
    }


def _head(one: Column) -> Head:
    origin = one.series.origin
    return Head(one.name, one.series.meaning, "" if origin is Origin.MEASURED else origin.value)


def _rows(arm: ArmView, columns: Sequence[Column]) -> Iterator[ReadingsRow]:
    for number, (name, of_boot) in enumerate(by_moment(arm).items()):
        moments, why = [moment for _, moment in of_boot], why_missing(arm, name)
        yield ReadingsRow(
            first=number == 0,
            arm=clean(arm.name, 60),
            colour=arm.index,
            moment=clean(name, 64),
            trials=len(moments),
            cells=tuple(_cell(one, moments, why.get(one.name, NO_READING)) for one in columns),
        )


def _cell(column: Column, moments: Sequence[Moment], why: str) -> Cell:
    there = [value for moment in moments if (value := column.of(moment)) is not None]
    return Cell(quantity(median(there), column.series.unit)) if there else Cell("", why_missing=why)

"""What was read at the moments that a scenario gives a name (`mark`): from a trial's files, and as rows of
moments.csv. Its columns are those that probes declare with their series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Final

from orchestrator.probes import DeclaredSeries, declared_series, moment_series
from orchestrator.records.events import Mark, of_kind
from orchestrator.records.summary import Moment, MomentGap
from orchestrator.series import Series
from orchestrator.store import TrialFolder
from orchestrator.summary.second_level import GuestShare

if TYPE_CHECKING:
    import pandas as pd

_LATER: Final = "moments.csv is of a version of the program that had no such column"

# (nanoseconds, value or NaN, why there is none)
_Row = tuple[int, float, str]


@dataclass(frozen=True)
class Column:
    """A column of moments.csv, and the series that is read in it, which has its unit and origin."""

    name: str
    declared: DeclaredSeries

    @property
    def series(self) -> Series:
        """What its probe says of it."""
        return self.declared.series

    def of(self, moment: Moment) -> float | None:
        """What was read at a moment; None where nothing was."""
        return moment.readings.get(self.name)


COLUMNS: Final[Mapping[str, Column]] = {
    name: Column(name, one) for name, one in moment_series(declared_series()).items()
}
HEAD: Final = ("moment", "seconds", *COLUMNS)
"""The columns of a moment's row, in their order."""


def column(name: str) -> Column:
    """The column of that name. Raises ValueError where no probe declares it."""
    if name not in COLUMNS:
        raise ValueError(f"moments.csv has no column {name!r}: series have {', '.join(COLUMNS)}")
    return COLUMNS[name]


def as_row(moment: Moment) -> dict[str, object]:
    """A moment as a row, by the names of `HEAD`."""
    return {"moment": moment.moment, "seconds": moment.seconds, **moment.readings}


def from_row(row: Mapping[str, str]) -> tuple[Moment, tuple[MomentGap, ...]]:
    """A moment from its row, and why it lacks readings of which the row has no column."""
    moment = row["moment"]
    readings = {name: float(row[name]) if row.get(name) else None for name in COLUMNS}
    gaps = tuple(MomentGap(moment, name, _LATER) for name in COLUMNS if name not in row)
    return Moment(moment, float(row["seconds"]), readings), gaps


def moments_of(
    trial: TrialFolder, frame: pd.DataFrame, share: GuestShare
) -> tuple[tuple[Moment, ...], tuple[MomentGap, ...]]:
    """The marks of a trial, in order, each with the last reading before it, and why any is missing.

    A reading that failed is not replaced by one before it: that is of another moment.
    """
    marks = of_kind(trial.events, Mark)
    if not marks:
        return (), ()
    rows = {name: _rows(frame, one.declared) for name, one in COLUMNS.items()}
    moments, gaps = [], []
    for mark in marks:
        readings: dict[str, float | None] = {}
        for name, one in COLUMNS.items():
            value, reason = _at(rows[name], mark.t_ns)
            if one.series.of_all_guests:
                value, reason = share.take(value, reason)
            readings[name] = value
            if value is None:
                gaps.append(MomentGap(mark.label, name, reason or f"no probe read {one.declared}"))
        moments.append(Moment(mark.label, mark.t_ns / 1e9, readings))
    return tuple(moments), tuple(gaps)


def _rows(frame: pd.DataFrame, one: DeclaredSeries) -> Sequence[_Row]:
    # A probe that fails as a whole says so under the name of `host` (orchestrator.run.sampling): what it had
    # read before that is of another moment.
    named = frame["name"].isin([one.series.name, "host"])
    rows = frame[(frame["source"] == one.source) & named].sort_values("t_ns")
    return list(
        zip(rows["t_ns"].astype(int), rows["value"].astype(float), rows["gap"].astype(str), strict=True)
    )


def _at(rows: Sequence[_Row], t_ns: int) -> tuple[float | None, str]:
    before = [(value, gap) for when, value, gap in rows if when <= t_ns]
    if not before:
        return None, ""
    value, gap = before[-1]
    return (None, gap) if isnan(value) else (value, "")

"""Second-level tables, and what needs them, at the moments that a scenario gives a name (`mark`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import isnan
from typing import TYPE_CHECKING, Final

from orchestrator.probes import DeclaredSeries, declared_series
from orchestrator.records.events import Mark, of_kind
from orchestrator.records.summary import Moment, MomentGap
from orchestrator.store import TrialFolder
from orchestrator.summary.second_level import GuestShare

if TYPE_CHECKING:
    import pandas as pd

_FIELDS: Final = [one.name for one in fields(Moment) if one.name not in {"moment", "seconds"}]
_FILLED_BY: Final = {one.series.moment: one for one in declared_series() if one.series.moment}

# (nanoseconds, value or NaN, why there is none)
_Row = tuple[int, float, str]


def moments_of(
    trial: TrialFolder, frame: pd.DataFrame, share: GuestShare
) -> tuple[tuple[Moment, ...], tuple[MomentGap, ...]]:
    """The marks of a trial, in order, each with the last reading before it, and why any is missing.

    A reading that failed is not replaced by one before it: that is of another moment.
    """
    marks = of_kind(trial.events, Mark)
    if not marks:
        return (), ()
    series = {field: _series(frame, _FILLED_BY[field]) for field in _FIELDS}
    moments, gaps = [], []
    for mark in marks:
        label = mark.label
        values: dict[str, float | None] = {}
        for field, rows in series.items():
            value, reason = _at(rows, mark.t_ns)
            if _FILLED_BY[field].series.of_all_guests:
                value, reason = share.take(value, reason)
            values[field] = value
            if value is None:
                gaps.append(MomentGap(label, field, reason or f"no probe read {_FILLED_BY[field]}"))
        moments.append(Moment(moment=label, seconds=mark.t_ns / 1e9, **values))
    return tuple(moments), tuple(gaps)


def _series(frame: pd.DataFrame, one: DeclaredSeries) -> Sequence[_Row]:
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

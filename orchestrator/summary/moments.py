"""Second-level tables, and what needs them, at the moments that a scenario gives a name (`mark`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Final

from orchestrator.records.events import Mark, of_kind
from orchestrator.records.summary import Moment, MomentGap
from orchestrator.store import TrialFolder
from orchestrator.summary.second_level import GuestShare

if TYPE_CHECKING:
    import pandas as pd

_SECOND_LEVEL: Final = "second_level_bytes"
# field of a Moment: the observation's source and name
_READINGS: Final = {
    _SECOND_LEVEL: ("host_meminfo", "second_level_bytes"),
    "needed_bytes": ("host_pagemap", "second_level_needed_bytes"),
    "pages_4k": ("host_kvm", "pages_4k"),
    "pages_2m": ("host_kvm", "pages_2m"),
    "small_ranges": ("host_pagemap", "small_ranges"),
    "huge_ranges": ("host_pagemap", "huge_ranges"),
    "host_page_table_bytes": ("host_qemu", "VmPTE"),
    "present_bytes": ("host_pagemap", "present_bytes"),
}

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
    series = {field: _series(frame, *place) for field, place in _READINGS.items()}
    moments, gaps = [], []
    for mark in marks:
        label = mark.label
        values: dict[str, float | None] = {}
        for field, rows in series.items():
            value, reason = _at(rows, mark.t_ns)
            if field == _SECOND_LEVEL:
                value, reason = share.take(value, reason)
            values[field] = value
            if value is None:
                gaps.append(MomentGap(label, field, reason or f"no probe read {'/'.join(_READINGS[field])}"))
        moments.append(Moment(moment=label, seconds=mark.t_ns / 1e9, **values))
    return tuple(moments), tuple(gaps)


def _series(frame: pd.DataFrame, source: str, name: str) -> Sequence[_Row]:
    # A probe that fails as a whole says so under the name of `host` (orchestrator.run.sampling): what it had
    # read before that is of another moment.
    rows = frame[(frame["source"] == source) & frame["name"].isin([name, "host"])].sort_values("t_ns")
    return list(
        zip(rows["t_ns"].astype(int), rows["value"].astype(float), rows["gap"].astype(str), strict=True)
    )


def _at(rows: Sequence[_Row], t_ns: int) -> tuple[float | None, str]:
    before = [(value, gap) for when, value, gap in rows if when <= t_ns]
    if not before:
        return None, ""
    value, gap = before[-1]
    return (None, gap) if isnan(value) else (value, "")

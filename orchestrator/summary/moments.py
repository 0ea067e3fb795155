"""Second-level tables, and what needs them, at the moments that a scenario gives a name (`mark`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from orchestrator.store import TrialFolder
from orchestrator.summary.records import Moment

if TYPE_CHECKING:
    import pandas as pd

# field of a Moment: the observation's source and name
_READINGS = {
    "second_level_bytes": ("host_meminfo", "second_level_bytes"),
    "needed_bytes": ("host_pagemap", "second_level_needed_bytes"),
    "pages_4k": ("host_kvm", "pages_4k"),
    "pages_2m": ("host_kvm", "pages_2m"),
    "small_ranges": ("host_pagemap", "small_ranges"),
    "huge_ranges": ("host_pagemap", "huge_ranges"),
    "host_page_table_bytes": ("host_qemu", "VmPTE"),
    "present_bytes": ("host_pagemap", "present_bytes"),
}


def moments_of(trial: TrialFolder, frame: pd.DataFrame, others_bytes: float | None) -> tuple[Moment, ...]:
    """The marks of a trial, in order, each with the last reading before it; None if that one failed.

    `others_bytes` are second-level tables of other guests of the host, which are taken off; None where
    these come and go, so that what the host counts says nothing of this one.
    """
    marks = [event for event in trial.events if event.name == "mark"]
    if not marks:
        return ()
    series = {field: _series(frame, *place) for field, place in _READINGS.items()}
    found = []
    for mark in marks:
        values = {field: _at(rows, mark.t_ns) for field, rows in series.items()}
        if others_bytes is None:
            values["second_level_bytes"] = None
        elif values["second_level_bytes"] is not None:
            values["second_level_bytes"] -= others_bytes
        found.append(Moment(moment=mark.text("label"), seconds=mark.t_ns / 1e9, **values))
    return tuple(found)


def _series(frame: pd.DataFrame, source: str, name: str) -> Sequence[tuple[int, float]]:
    # A probe that fails as a whole says so under the name of `host` (orchestrator.run.sampling): what it had
    # read before that is of another moment.
    rows = frame[(frame["source"] == source) & frame["name"].isin([name, "host"])].sort_values("t_ns")
    return list(zip(rows["t_ns"].astype(int), rows["value"].astype(float), strict=True))


def _at(rows: Sequence[tuple[int, float]], t_ns: int) -> float | None:
    before = [value for when, value in rows if when <= t_ns]
    return before[-1] if before and not isnan(before[-1]) else None

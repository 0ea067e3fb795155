"""Second-level tables at the moments that a scenario names: measured, needed, and what maps nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from orchestrator.records.summary import Moment, SnapshotResult
from orchestrator.report.comparison import Cell
from orchestrator.report.data import ArmView, RunView
from orchestrator.report.text import clean, count, size
from orchestrator.stats import averaged, of_few
from orchestrator.units import PAGE_BYTES

_NO_READING = "no trial of the arm that counts has read it"
_MEASURED, _NEEDED = "second_level_bytes", "needed_bytes"  # fields of a Moment


@dataclass(frozen=True)
class MomentRow:
    """An arm at a moment, over its trials; `first` of its arm.

    `ratio` is measured over needed: the mean of the trials or, of five boots and more, that of the boots
    with Student's interval.
    """

    first: bool
    arm: str
    colour: int
    moment: str
    trials: int
    boots: int
    measured: Cell
    needed: Cell
    reclaimable: Cell
    ratio: Cell
    entries: Cell
    ranges: Cell


def moment_rows(view: RunView) -> list[MomentRow]:
    """Rows for every arm and moment with second-level tables; none where there are none."""
    rows = [row for arm in view.arms for row in _rows(arm)]
    return rows if any(row.measured.text for row in rows) else []


def most_kept(arm: ArmView) -> tuple[str, float] | None:
    """The moment of an arm at which KVM had most of what is needed, and how many times as much."""
    counted = [trial.summary for trial in arm.trials if not trial.summary.left_out]
    ratios: dict[str, list[float]] = {}
    for one in (one for summary in counted for one in summary.moments):
        if one.second_level_bytes is not None and one.needed_bytes:
            ratios.setdefault(one.moment, []).append(one.second_level_bytes / one.needed_bytes)
    return max(((moment, fmean(found)) for moment, found in ratios.items()), key=_times, default=None)


def _times(one: tuple[str, float]) -> float:
    return one[1]


def _rows(arm: ArmView) -> Iterator[MomentRow]:
    counted = [trial.summary for trial in arm.trials if not trial.summary.left_out]
    names = dict.fromkeys(one.moment for summary in counted for one in summary.moments)
    for number, name in enumerate(names):
        of_boot = [
            (summary.state or summary.trial, one)
            for summary in counted
            for one in summary.moments
            if one.moment == name
        ]
        found = [one for _, one in of_boot]
        why = {
            gap.reading: clean(gap.reason, 200)
            for summary in counted
            for gap in summary.moment_gaps
            if gap.moment == name
        }
        measured, needed = why.get(_MEASURED, _NO_READING), why.get(_NEEDED, _NO_READING)
        either = measured if _MEASURED in why else needed
        yield MomentRow(
            first=number == 0,
            arm=clean(arm.name, 60),
            colour=arm.index,
            moment=clean(name, 64),
            trials=len(found),
            boots=len({boot for boot, _ in of_boot}),
            measured=_size([one.second_level_bytes for one in found], measured),
            needed=_size([one.needed_bytes for one in found], needed),
            reclaimable=_size([one.reclaimable_bytes for one in found], either),
            ratio=_ratio(of_boot, either),
            entries=_pair(found, ("pages_4k", "pages_2m"), why),
            ranges=_pair(found, ("small_ranges", "huge_ranges"), why),
        )


def _size(values: Sequence[float | None], why_missing: str) -> Cell:
    there = [value for value in values if value is not None]
    return Cell(size(median(there))) if there else Cell("", why_missing=why_missing)


def _pair(moments: Sequence[Moment], names: tuple[str, str], why: Mapping[str, str]) -> Cell:
    halves = [[value for one in moments if (value := getattr(one, name)) is not None] for name in names]
    if not all(halves):
        return Cell("", why_missing=next((why[name] for name in names if name in why), _NO_READING))
    return Cell(", ".join(count(median(half)) for half in halves))


def _ratio(moments: Sequence[tuple[str, Moment]], why_missing: str) -> Cell:
    """Of moments, each with the boot that it is of."""
    ratios = {
        (boot, number): one.second_level_bytes / one.needed_bytes
        for number, (boot, one) in enumerate(moments)
        if one.second_level_bytes is not None and one.needed_bytes
    }
    if not ratios:
        return Cell("", why_missing=why_missing)
    values, boots = np.array(list(ratios.values())), [boot for boot, _ in ratios]
    interval = of_few(values, boots)
    if interval is None:
        return Cell(f"{fmean(values):.2f}")
    return Cell(f"{averaged(values, boots).mean():.2f} [{interval.low:.2f}, {interval.high:.2f}]")


# Policies of orchestrator.model.second_level_tree, by the fields of a SnapshotResult.
POLICIES = ("empty", "empty_all_levels", "zero_page", "lru", "drop")


@dataclass(frozen=True)
class TreeRow:
    """KVM's tables in a snapshot of a host: medians of an arm's trials. `cells` are bytes, of POLICIES."""

    first: bool
    arm: str
    colour: int
    snapshot: str
    trials: int
    tables: str
    cells: tuple[str, ...]


def tree_rows(view: RunView) -> list[TreeRow]:
    """Rows for every arm and snapshot of a host in which KVM's tables were looked for."""
    return [row for arm in view.arms for row in _tree_rows(arm)]


def _tree_rows(arm: ArmView) -> Iterator[TreeRow]:
    counted = [trial.summary for trial in arm.trials if not trial.summary.left_out]
    results = [one for summary in counted for one in summary.snapshots if one.second_level_tables is not None]
    for number, label in enumerate(dict.fromkeys(one.snapshot for one in results)):
        found = [one for one in results if one.snapshot == label]
        found_tables = [one.second_level_tables for one in found if one.second_level_tables is not None]
        yield TreeRow(
            first=number == 0,
            arm=clean(arm.name, 60),
            colour=arm.index,
            snapshot=clean(label, 64),
            trials=len(found),
            tables=count(median(found_tables)),
            cells=tuple(_freed(found, name) for name in POLICIES),
        )


def _freed(found: Sequence[SnapshotResult], policy: str) -> str:
    """Bytes; empty where no trial says how many tables the policy would free."""
    tables = [freed for one in found if (freed := getattr(one, f"second_level_{policy}")) is not None]
    return size(median(tables) * PAGE_BYTES) if tables else ""

"""Second-level tables at the moments that a scenario names: measured, needed, and what maps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import getdoc
from statistics import fmean, median

import numpy as np

from orchestrator.analysis.arm_table import Cell
from orchestrator.analysis.arms import ArmView, RunView
from orchestrator.analysis.moments import NO_READING, by_moment, counted, why_missing
from orchestrator.analysis.text import clean, count, size
from orchestrator.model.policies import OverTree
from orchestrator.records.summary import Moment, SecondLevelResult
from orchestrator.stats import averaged, of_few
from orchestrator.summary.moments import column
from orchestrator.units import PAGE_BYTES

_MEASURED, _NEEDED = column("second_level_bytes"), column("needed_bytes")


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


def reclaimable_bytes(moment: Moment) -> float | None:
    """Tables that map nothing at a moment: predicted, since it follows from a prediction."""
    measured, needed = _MEASURED.of(moment), _NEEDED.of(moment)
    return None if measured is None or needed is None else max(0.0, measured - needed)


def moment_rows(view: RunView) -> list[MomentRow]:
    """Rows for every arm and moment with second-level tables; none where there are none."""
    rows = [row for arm in view.arms for row in _rows(arm)]
    return rows if any(row.measured.text for row in rows) else []


def most_kept(arm: ArmView) -> tuple[str, float] | None:
    """The moment of an arm at which KVM had most of what is needed, and how many times as much."""
    ratios: dict[str, list[float]] = {}
    for one in (one for summary in counted(arm) for one in summary.moments):
        ratio = _kept(one)
        if ratio is not None:
            ratios.setdefault(one.moment, []).append(ratio)
    return max(((moment, fmean(found)) for moment, found in ratios.items()), key=_times, default=None)


def _kept(moment: Moment) -> float | None:
    """How many times as much KVM has as is needed."""
    measured, needed = _MEASURED.of(moment), _NEEDED.of(moment)
    return measured / needed if measured is not None and needed else None


def _times(one: tuple[str, float]) -> float:
    return one[1]


def _rows(arm: ArmView) -> Iterator[MomentRow]:
    for number, (name, of_boot) in enumerate(by_moment(arm).items()):
        found = [one for _, one in of_boot]
        why = why_missing(arm, name)
        measured, needed = (why.get(one.name, NO_READING) for one in (_MEASURED, _NEEDED))
        either = measured if _MEASURED.name in why else needed
        yield MomentRow(
            first=number == 0,
            arm=clean(arm.name, 60),
            colour=arm.index,
            moment=clean(name, 64),
            trials=len(found),
            boots=len({boot for boot, _ in of_boot}),
            measured=_size(map(_MEASURED.of, found), measured),
            needed=_size(map(_NEEDED.of, found), needed),
            reclaimable=_size(map(reclaimable_bytes, found), either),
            ratio=_ratio(of_boot, either),
        )


def _size(values: Iterable[float | None], why: str) -> Cell:
    there = [value for value in values if value is not None]
    return Cell(size(median(there))) if there else Cell("", why_missing=why)


def _ratio(moments: Sequence[tuple[str, Moment]], why: str) -> Cell:
    """Of moments, each with the boot that it is of."""
    there = [(boot, ratio) for boot, one in moments if (ratio := _kept(one)) is not None]
    if not there:
        return Cell("", why_missing=why)
    values, boots = np.array([ratio for _, ratio in there]), [boot for boot, _ in there]
    interval = of_few(values, boots)
    if interval is None:
        return Cell(f"{fmean(values):.2f}")
    return Cell(f"{averaged(values, boots).mean():.2f} [{interval.low:.2f}, {interval.high:.2f}]")


@dataclass(frozen=True)
class TreeCell:
    """What a policy would free, in bytes; `rebuilt` and `taken` bound what comes again, and what huge pages
    take. Each is empty where no trial says it, `taken` also where there is no huge page."""

    freed: str = ""
    rebuilt: str = ""
    taken: str = ""


@dataclass(frozen=True)
class TreeRow:
    """KVM's tables in a snapshot of a host: medians of an arm's trials, `cells` by policy."""

    first: bool
    arm: str
    colour: int
    snapshot: str
    trials: int
    tables: str
    cells: tuple[TreeCell, ...]


@dataclass(frozen=True)
class TreeTable:
    """What policies would free of KVM's tables, those that free least first.

    `explained`: what each is, as far as this version knows it; `rows`: arms and snapshots of a host in which
    tables were looked for, none where there are none.
    """

    policies: tuple[str, ...]
    explained: tuple[tuple[str, str], ...]
    rows: tuple[TreeRow, ...]


def tree_table(view: RunView) -> TreeTable:
    """The table of all arms."""
    freed: dict[str, int] = {}
    for arm in view.arms:
        for one in (one for summary in counted(arm) for one in summary.second_level):
            freed[one.policy] = freed.get(one.policy, 0) + one.tables_freed
    policies = tuple(sorted(freed, key=lambda name: (freed[name], name)))
    known = {policy.name: getdoc(policy.zaps) or "" for policy in OverTree.every()} if freed else {}
    return TreeTable(
        tuple(clean(name, 40) for name in policies),
        tuple((clean(name, 40), known[name]) for name in policies if name in known),
        tuple(row for arm in view.arms for row in _tree_rows(arm, policies)),
    )


def _tree_rows(arm: ArmView, policies: Sequence[str]) -> Iterator[TreeRow]:
    looked_for: dict[str, list[int]] = {}
    results: dict[tuple[str, str], list[SecondLevelResult]] = {}
    for summary in counted(arm):
        for found in summary.snapshots:
            if found.second_level_tables is not None:
                looked_for.setdefault(found.snapshot, []).append(found.second_level_tables)
        for one in summary.second_level:
            results.setdefault((one.snapshot, one.policy), []).append(one)
    for number, (label, tables) in enumerate(looked_for.items()):
        yield TreeRow(
            first=number == 0,
            arm=clean(arm.name, 60),
            colour=arm.index,
            snapshot=clean(label, 64),
            trials=len(tables),
            tables=count(median(tables)),
            cells=tuple(_tree_cell(results.get((label, policy), [])) for policy in policies),
        )


def _tree_cell(results: Sequence[SecondLevelResult]) -> TreeCell:
    if not results:
        return TreeCell()
    rebuilt = [one.tables_rebuilt_at_most for one in results if one.tables_rebuilt_at_most is not None]
    huge = [one.huge_pages for one in results if one.huge_pages is not None]
    taken = [one.bytes_taken_at_most for one in results if one.bytes_taken_at_most is not None]
    return TreeCell(
        freed=size(median(one.bytes_freed for one in results)),
        rebuilt=f"at most {size(median(rebuilt) * PAGE_BYTES)} again" if rebuilt else "",
        taken=f"{count(median(huge))} huge pages, at most {size(median(taken))} taken" if any(huge) else "",
    )

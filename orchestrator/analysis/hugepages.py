"""Huge pages: what memory could supply at each snapshot, and what the guest's counters say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.analysis.arm_table import Cell
from orchestrator.analysis.arms import ArmView, RunView, TrialView, series
from orchestrator.analysis.text import clean, count
from orchestrator.records.summary import SnapshotResult
from orchestrator.summary import PolicyResult

_SOURCE: Final = "guest_vmstat"
# Documentation/admin-guide/mm/transhuge.rst. Of fallbacks, no huge page was to be had; a stall is a
# task that had to compact memory itself.
COUNTERS: Final = (
    "thp_fault_alloc",
    "thp_fault_fallback",
    "compact_success",
    "compact_fail",
    "compact_stall",
)
# The kernel's own count of free ranges, beside the one made from page flags: a level, not a counter.
FREE_RANGES: Final = "free ranges, first to last"
_RANGES: Final = ("guest_pagetypeinfo", "free_huge_ranges")
_NOTHING: Final = "none"  # the policy that changes nothing says what is freeable as it is


@dataclass(frozen=True)
class SupplyRow:
    """One snapshot; `first` of its arm. `deposited` counts page tables; `cells` are freeable ranges under
    each policy of the table."""

    first: bool
    arm: str
    snapshot: str
    ranges: str
    free: str
    freeable: str
    deposited: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class CounterRow:
    """One trial: how far each of COUNTERS went up, and FREE_RANGES."""

    trial: str
    colour: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HugePages:
    """The section."""

    policies: tuple[str, ...]
    supply: tuple[SupplyRow, ...]
    counters: tuple[CounterRow, ...]


def huge_pages(view: RunView) -> HugePages | None:
    """None where no trial that stands for an arm has a snapshot that was looked at."""
    results = [result for arm in view.arms for result in arm.shown.summary.policies]
    policies = tuple(dict.fromkeys(result.policy for result in results if result.policy != _NOTHING))
    supply = tuple(row for arm in view.arms for row in _supply(arm, policies))
    counters = tuple(_counters(arm, trial) for arm in view.arms for trial in arm.trials)
    if not supply:
        return None
    if not any(cell.text for row in counters for cell in row.cells):
        counters = ()
    return HugePages(tuple(clean(name, 40) for name in policies), supply, counters)


def _supply(arm: ArmView, policies: tuple[str, ...]) -> list[SupplyRow]:
    summary = arm.shown.summary
    under = {(result.snapshot, result.policy): result for result in summary.policies}
    return [
        SupplyRow(
            first=number == 0,
            arm="" if number else f"{clean(arm.name, 60)}{arm.of_one}",
            snapshot=clean(result.snapshot, 40),
            ranges=count(result.huge_ranges),
            free=count(result.huge_free),
            freeable=count(result.huge_freeable),
            deposited=_deposited(result),
            cells=tuple(_freeable(result, under, policy) for policy in policies),
        )
        for number, result in enumerate(summary.snapshots)
    ]


def _deposited(result: SnapshotResult) -> Cell:
    if result.page_tables_deposited is None:
        why = "the guest's memmap was not read, or the run is of an older version"
        return Cell("", why_missing=why)
    return Cell(count(result.page_tables_deposited))


def _freeable(result: SnapshotResult, under: Mapping[tuple[str, str], PolicyResult], policy: str) -> Cell:
    found = under.get((result.snapshot, policy))
    if found is None:
        return Cell("", why_missing="no page table was read in this snapshot")
    if found.huge_freeable is None:
        return Cell("", why_missing="the run is of an older version")
    return Cell(count(found.huge_freeable))


def _counters(arm: ArmView, trial: TrialView) -> CounterRow:
    cells = (*(_change(trial, name) for name in COUNTERS), _free_ranges(trial))
    return CounterRow(clean(trial.summary.trial), arm.index, cells)


def _free_ranges(trial: TrialView) -> Cell:
    source, name = _RANGES
    points = series(trial.frame, source, name) if trial.frame is not None else []
    if not points:
        return Cell("", why_missing=f"{source}/{name} was never read")
    return Cell(f"{count(points[0][1])} to {count(points[-1][1])}")


def _change(trial: TrialView, name: str) -> Cell:
    if trial.frame is None:
        return Cell("", why_missing="only the summaries of this run were kept")
    points = series(trial.frame, _SOURCE, name)
    if len(points) < 2:
        often = "read only once" if points else "never read"
        return Cell("", why_missing=f"{_SOURCE}/{name} was {often}")
    return Cell(f"{points[-1][1] - points[0][1]:,.0f}")

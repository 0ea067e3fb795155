"""The comparison table: metrics down, arms across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from orchestrator.analysis.arms import ArmView
from orchestrator.analysis.conditions import NOT_COMPARABLE, emulated
from orchestrator.analysis.oom_kills import END, OWNER_KILLED, killed_workloads
from orchestrator.analysis.text import FORMATS, clean
from orchestrator.metric import COST_PHASES
from orchestrator.stats import Significance, averaged
from orchestrator.summary import CATALOGUE, METRIC, TrialSummary
from orchestrator.verdict import Comparison

_GROUPS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Guest page tables",
        (
            ("guest_page_table_bytes_peak", "peak of the samples"),
            ("guest_page_table_bytes_end", "at the end"),
            ("guest_page_tables_total", "count in the snapshot"),
            ("guest_page_tables_empty", "of these, empty"),
            ("guest_memmap_bytes", "memmap"),
        ),
    ),
    (
        "Hot-unplug",
        (
            ("unplug_requested_bytes", "requested"),
            ("unplug_achieved_bytes", "unplugged"),
            ("unplug_shortfall_bytes", "shortfall"),
            ("unplug_seconds", "settled after"),
            ("unplug_outcome", "outcome"),
        ),
    ),
    (
        "Blocks still plugged",
        (
            ("blocks_plugged", "plugged before"),
            ("blocks_plugged_after", "still plugged after"),
            ("blocks_pinned", "pinned"),
            ("blocks_pinned_page_table", "contain a page table"),
            ("blocks_pinned_page_table_only", "page tables are the sole blocker"),
            ("blocks_pinned_slab", "contain slab"),
            ("blocks_pinned_other", "pinned by other memory only"),
            ("blocks_unexplained", "unexplained"),
        ),
    ),
    (
        "Balloon",
        (
            ("balloon_requested_bytes", "requested"),
            ("balloon_achieved_bytes", "inflated"),
        ),
    ),
    (
        "Host",
        (
            ("host_page_table_bytes", "QEMU's page tables"),
            ("host_rss_bytes", "QEMU resident"),
            ("second_level_bytes", "second-level tables"),
            ("second_level_needed_bytes", "second-level tables needed"),
        ),
    ),
    (
        "Memory pressure",
        (
            ("guest_oom_kills", "OOM kills in the guest"),
            ("guest_swap_out_pages", "pages swapped out by the guest"),
            ("guest_swap_in_pages", "pages swapped in by the guest"),
            ("guest_memory_some_seconds", "some task of the guest stalled"),
            ("guest_memory_full_seconds", "all tasks of the guest stalled"),
            ("host_oom_kills", "OOM kills on the host"),
            ("host_cgroup_oom_kills", "of these, in QEMU's cgroup"),
            ("host_swap_out_pages", "pages swapped out by the host"),
            ("host_swap_in_pages", "pages swapped in by the host"),
            ("host_memory_some_seconds", "some task of the host stalled"),
            ("host_memory_full_seconds", "all tasks of the host stalled"),
        ),
    ),
    (
        "Integrity",
        (
            ("integrity_checked_bytes", "bytes checked"),
            ("integrity_mismatches", "pages with wrong contents"),
            ("integrity_stuck_threads", "stuck threads"),
            ("kernel_log_complaints", "kernel log errors"),
        ),
    ),
    (
        "Workload",
        (
            ("workload_ops_per_second", "operations"),
            ("workload_p99_seconds", "99th percentile"),
        ),
    ),
    (
        "Instructions for each page table",
        tuple((f"{phase}_instructions_per_table", phase.replace("_", " ")) for phase in COST_PHASES),
    ),
)


def _others() -> tuple[tuple[str, str], ...]:
    """Metrics that no group above names, such as those of a probe that was added: by their own names."""
    grouped = {name for _, rows in _GROUPS for name, _ in rows}
    return tuple(
        (one.name, one.name.replace("_", " "))
        for one in CATALOGUE
        if one.name not in grouped and one.name != _ACCELERATION
    )


_ACCELERATION: Final = "accel"  # stands with the conditions
OTHER: Final = "Other"

ROWS: Final = (*_GROUPS, (OTHER, _others()))
"""Headings of the table; below each, metrics and what a reader calls them. Every metric is in it, once."""

# From here on two arms differ for a reader; below, they are called about the same.
SAME_SHARE: Final = 0.05

# The note of a metric that a restore shifts.
RESTORED: Final = "measured in restored guests; booted ones differ"

# The note of a figure at the end, where the OOM killer had ended processes before.
AFTER_KILLS: Final = "after OOM kills in the guest"

# A note in words, and what stands for it in a terminal's table.
_SIGNS: Final = {NOT_COMPARABLE: "†", RESTORED: "‡", AFTER_KILLS: "§"}


@dataclass(frozen=True)
class Cell:
    """One arm's value. `share` of the largest of the row, 0 to 100, is drawn as a bar."""

    text: str
    spread: str = ""
    share: float = 0.0
    why_missing: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Row:
    """A metric of all arms. `differs`: they are significantly apart or, where nothing can be said of that,
    by more than SAME_SHARE of the larger; so are words that are not the same."""

    metric: str
    label: str
    cells: tuple[Cell, ...]
    predicted: bool
    note: str = ""
    differs: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


def comparison(arms: tuple[ArmView, ...], against: Comparison | None = None) -> list[Group]:
    """The groups and rows of which at least one arm has a value; `against` says what is significant."""
    groups = []
    for title, metrics in ROWS:
        candidates = [_row(arms, metric, label, against) for metric, label in metrics]
        rows = tuple(row for row in candidates if any(cell.text for cell in row.cells))
        if rows:
            groups.append(Group(title, rows))
    return groups


def _row(arms: tuple[ArmView, ...], metric: str, label: str, against: Comparison | None) -> Row:
    unit = METRIC[metric].unit
    if unit:
        largest = max((abs(value) for arm in arms for value in arm.numbers(metric)), default=0.0)
        cells = tuple(_number(arm, metric, unit, largest) for arm in arms)
    else:
        cells = tuple(_word(arm, metric) for arm in arms)
    restored = any(one.start == "warm" for one in _summaries(arms))
    notes = (
        _taken_at(arms, metric),
        condition_note(metric, tcg=emulated(_summaries(arms)), restored=restored),
    )
    return Row(
        metric=metric,
        label=label,
        cells=cells,
        predicted=METRIC[metric].predicted,
        note=", ".join(filter(None, notes)),
        differs=_differs(arms, metric, cells, against),
    )


def split(groups: Sequence[Group]) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """The rows in which arms differ, and the rest, each under its headings."""
    halves = (
        (Group(one.title, tuple(row for row in one.rows if row.differs is differs)) for one in groups)
        for differs in (True, False)
    )
    first, rest = (tuple(group for group in half if group.rows) for half in halves)
    return first, rest


def _differs(arms: Sequence[ArmView], metric: str, cells: Sequence[Cell], against: Comparison | None) -> bool:
    there = [cell.text for cell in cells if cell.text]
    if not METRIC[metric].unit:
        return len(set(there)) > 1
    found = [pair.metrics[metric] for pair in against.pairs if metric in pair.metrics] if against else []
    if not found and against and any(pair.incomparable for pair in against.pairs):
        return False  # what hosts differ in, perhaps
    if any(one.significance is Significance.SIGNIFICANT for one in found):
        return True
    if found and all(one.significance is not Significance.TOO_FEW_BOOTS for one in found):
        return False
    values = [value for arm in arms if (value := arm.typical(metric)) is not None]
    return bool(values) and not about_same(min(values), max(values))


def about_same(low: float, high: float) -> bool:
    """Whether two values are less apart than a reader calls different."""
    return abs(high - low) <= SAME_SHARE * max(abs(low), abs(high))


def condition_note(metric: str, *, tcg: bool, restored: bool) -> str:
    """That a rate or a time is one of software emulation, or that guests were restored where this is a
    difference by itself."""
    found = METRIC[metric]
    notes = (RESTORED if found.shifts and restored else "", NOT_COMPARABLE if found.timed and tcg else "")
    return ", ".join(filter(None, notes))


def signs_of(note: str) -> str:
    """The signs that stand for a row's notes where there is no room for words: ` †`."""
    return "".join(f" {sign}" for words, sign in _SIGNS.items() if words in note)


def footnotes(notes: Iterable[str]) -> list[str]:
    """What the signs mean that stand for these notes."""
    there = [*notes]
    return [f"{sign} {words}" for words, sign in _SIGNS.items() if any(words in note for note in there)]


def _summaries(arms: Sequence[ArmView]) -> Iterator[TrialSummary]:
    return (trial.summary for arm in arms for trial in arm.trials)


def _taken_at(arms: tuple[ArmView, ...], metric: str) -> str:
    """Which snapshot a count is from, where that is the same for all arms."""
    if metric == "guest_page_tables_total":
        labels = {trial.summary.tables_snapshot for arm in arms for trial in arm.trials}
    elif metric == "blocks_plugged_after":
        labels = {trial.summary.blocks_snapshot for arm in arms for trial in arm.trials}
    else:
        return ""
    labels -= {""}
    return clean(f"at {labels.pop()}", 40) if len(labels) == 1 else ""


def _word(arm: ArmView, metric: str) -> Cell:
    words = Counter(
        str(trial.summary.metrics[metric]) for trial in arm.trials if metric in trial.summary.metrics
    )
    if not words:
        return Cell("", why_missing=_reason(arm, metric))
    trials = len(arm.trials)
    parts = [
        word if times == trials else f"{word} ({times} of {trials})" for word, times in words.most_common()
    ]
    return Cell(clean(", ".join(parts)))


def _number(arm: ArmView, metric: str, unit: str, largest: float) -> Cell:
    typical = arm.typical(metric)
    if typical is None:
        return Cell("", why_missing=_reason(arm, metric))
    share = round(100 * abs(typical) / largest, 2) if largest else 0.0
    owner = f", {OWNER_KILLED}" if metric == END and killed_workloads(arm) else ""
    return Cell(f"{FORMATS[unit](typical)}{owner}", _spread(arm, metric, unit), share, numeric=True)


def _spread(arm: ArmView, metric: str, unit: str) -> str:
    """From the lowest boot to the highest; of one boot that of its trials, which is not that of guests."""
    values, boots = np.array(arm.numbers(metric)), arm.boots(metric)
    means = averaged(values, boots)
    shown = means if len(means) > 1 else values
    low, high = FORMATS[unit](float(shown.min())), FORMATS[unit](float(shown.max()))
    if low == high:
        return ""
    return f"{low} to {high}" if len(means) > 1 else f"{low} to {high}, of 1 boot"


def _reason(arm: ArmView, metric: str) -> str:
    reasons = (trial.summary.gaps.get(metric) for trial in arm.trials)
    return clean(next((reason for reason in reasons if reason), "not measured"))

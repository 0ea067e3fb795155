"""Integrity findings for people: wrong contents, stuck threads, kernel log errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.analysis.arms import RunView
from orchestrator.analysis.text import clean, count

_MOST_ROWS: Final = 100
_WORDS: Final = {
    "mismatch": "wrong contents",
    "fault": "no memory",
    "stuck": "stuck thread",
    "kernel-log": "kernel log error",
    "stall": "stall",
}


@dataclass(frozen=True)
class FindingRow:
    """A line of the table. `bad` is all but a stall, which a slow host may cause."""

    trial: str
    kind: str
    by: str
    text: str
    bad: bool


def finding_rows(view: RunView) -> list[FindingRow]:
    """The first findings of all trials, arm by arm, those that are bad first."""
    rows = [
        FindingRow(
            clean(trial.summary.trial, 60),
            _WORDS.get(one.kind, clean(one.kind, 40)),
            clean(one.by, 40),
            clean(one.text, 500),
            one.kind != "stall",
        )
        for trial in view.trials
        for one in trial.summary.findings
    ]
    return sorted(rows, key=lambda row: not row.bad)[:_MOST_ROWS]


def findings_left(view: RunView) -> int:
    """How many findings `finding_rows` leaves out."""
    return max(0, sum(len(trial.summary.findings) for trial in view.trials) - _MOST_ROWS)


def finding_sentences(view: RunView) -> Iterator[str]:
    """Which arms have integrity findings, and the first of each."""
    seen = [(arm, _counts(arm.typical)) for arm in view.arms]
    for arm, counts in seen:
        if counts:
            rows = (one.text for trial in arm.trials for one in trial.summary.findings if one.kind != "stall")
            first = next(rows, "")
            where = f" First: {clean(first, 300)}." if first else ""
            yield f"With {clean(arm.name, 60)}, {' and '.join(counts)}.{where}"


def _counts(worst: Callable[[str], float | None]) -> list[str]:
    words = (
        ("integrity_mismatches", "page has", "pages have", "wrong contents"),
        ("integrity_stuck_threads", "thread is", "threads are", "stuck"),
        ("kernel_log_complaints", "error is", "errors are", "in the kernel log"),
    )
    return [
        f"{count(value)} {one if value == 1 else many} {what}"
        for metric, one, many, what in words
        if (value := worst(metric))
    ]

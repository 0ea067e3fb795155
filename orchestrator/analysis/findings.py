"""What must not be, for people: contents that changed, threads that stood still, complaints of kernels."""

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
    "stuck": "stood still",
    "kernel-log": "kernel complaint",
    "stall": "stall",
}


@dataclass(frozen=True)
class FindingRow:
    """A line of the table. `bad` is what must not be; a stall may be the host's doing."""

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
    """Which arms had what must not be, and where it was seen first."""
    seen = [(arm, _counts(arm.typical)) for arm in view.arms]
    for arm, counts in seen:
        if counts:
            rows = (one.text for trial in arm.trials for one in trial.summary.findings if one.kind != "stall")
            first = next(rows, "")
            where = f" First: {clean(first, 300)}." if first else ""
            yield f"With {clean(arm.name, 60)}, {' and '.join(counts)}.{where}"


def _counts(worst: Callable[[str], float | None]) -> list[str]:
    words = (
        ("integrity_mismatches", "page did not hold", "pages did not hold", "what was written"),
        ("integrity_stuck_threads", "thread", "threads", "stood still"),
        ("kernel_log_complaints", "complaint is", "complaints are", "in the kernel's log"),
    )
    return [
        f"{count(value)} {one if value == 1 else many} {what}"
        for metric, one, many, what in words
        if (value := worst(metric))
    ]

"""summary.csv, summary_gaps.csv and policies.csv: written, and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from orchestrator.store import Run, layout, open_run, write_summary_files
from orchestrator.summary.metrics import summarise_run
from orchestrator.summary.records import METRICS, PolicyResult, TrialSummary, Value

# Columns of summary.csv that are not settings of an arm.
_FRONT: Final = ("run", "trial", "arm", "repeat")
_MIDDLE: Final = ("kernel_release", "outcome", "tables_snapshot", "blocks_snapshot")


def write_summaries(run_dir: Path, summaries: Sequence[TrialSummary]) -> None:
    """Write summary.csv, summary_gaps.csv and policies.csv."""
    settings = dict.fromkeys(key for summary in summaries for key in summary.differs)
    write_summary_files(
        run_dir,
        [_row(summary, settings) for summary in summaries],
        [
            {"trial": summary.trial, "metric": metric, "reason": reason}
            for summary in summaries
            for metric, reason in summary.gaps.items()
        ],
        [
            {"run": summary.run, "trial": summary.trial, **vars(result)}
            for summary in summaries
            for result in summary.policies
        ],
    )


def refresh(run_dir: Path) -> list[TrialSummary]:
    """Compute all summaries of a run again from its trials' files, and write them."""
    summaries = summarise_run(open_run(run_dir))
    write_summaries(run_dir, summaries)
    return summaries


def load(run: Run) -> list[TrialSummary]:
    """The summaries that are saved, if they cover all that is on disk; else they are computed."""
    # A folder without trials is one of which only the small files were kept (results/reference).
    on_disk = {trial.id: trial.outcome for trial in run.trials}
    kept = saved(run)
    covered = {summary.trial: summary.outcome for summary in kept}
    return kept if on_disk.items() <= covered.items() else summarise_run(run)


def saved(run: Run) -> list[TrialSummary]:
    """The summaries in the run's tables; none where these are missing, or of another shape."""
    try:
        return _saved(run)
    except (FileNotFoundError, KeyError, ValueError):
        return []


def _row(summary: TrialSummary, settings: Iterable[str]) -> dict[str, object]:
    return {
        "run": summary.run,
        "trial": summary.trial,
        "arm": summary.arm,
        "repeat": summary.repeat,
        **{key: summary.differs.get(key, "") for key in settings},
        "kernel_release": summary.kernel_release,
        "outcome": summary.outcome,
        "tables_snapshot": summary.tables_snapshot,
        "blocks_snapshot": summary.blocks_snapshot,
        **{name: summary.metrics.get(name) for name in METRICS},
    }


def _saved(run: Run) -> list[TrialSummary]:
    gaps: dict[str, dict[str, str]] = {}
    for row in _read_csv(run.directory / layout.SUMMARY_GAPS):
        gaps.setdefault(row["trial"], {})[row["metric"]] = row["reason"]
    policies: dict[str, list[PolicyResult]] = {}
    for row in _read_csv(run.directory / layout.POLICIES):
        policies.setdefault(row["trial"], []).append(_policy_result(row))
    known = {*_FRONT, *_MIDDLE, *METRICS}
    return [
        TrialSummary(
            run=row["run"],
            trial=row["trial"],
            arm=row["arm"],
            repeat=int(row["repeat"]),
            differs={key: value for key, value in row.items() if key not in known and value},
            kernel_release=row["kernel_release"],
            outcome=row["outcome"],
            metrics={name: _parsed(row[name]) for name in METRICS if row[name]},
            gaps=gaps.get(row["trial"], {}),
            tables_snapshot=row["tables_snapshot"],
            blocks_snapshot=row["blocks_snapshot"],
            policies=tuple(policies.get(row["trial"], ())),
        )
        for row in _read_csv(run.directory / layout.SUMMARY)
    ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _parsed(text: str) -> Value:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def _policy_result(row: Mapping[str, str]) -> PolicyResult:
    def number(column: str) -> int | None:
        return int(row[column]) if row[column] else None

    return PolicyResult(
        snapshot=row["snapshot"],
        policy=row["policy"],
        tables_freed=int(row["tables_freed"]),
        bytes_freed=int(row["bytes_freed"]),
        tables_to_move=int(row["tables_to_move"]),
        blocks_freed=number("blocks_freed"),
        blocks_freed_if_moved=number("blocks_freed_if_moved"),
        block_bytes=number("block_bytes"),
        origin=row["origin"],
    )

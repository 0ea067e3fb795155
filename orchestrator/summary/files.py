"""summary.csv, summary_gaps.csv and the tables of what snapshots and moments say: written, and read back."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestrator.headline import METRICS
from orchestrator.jsontext import parse_json
from orchestrator.records.base import number
from orchestrator.records.summary import (
    BlameResult,
    Finding,
    KilledProcess,
    Moment,
    MomentGap,
    PolicyResult,
    SecondLevelResult,
    SnapshotResult,
    TrialSummary,
    Value,
)
from orchestrator.records.versions import Tables, migrated_tables
from orchestrator.store import Run, append_to_table, layout, open_run, write_table
from orchestrator.summary import moments
from orchestrator.summary.metrics import summarise_run

_KEYS: Final = ("run", "trial")
_GAP_COLUMNS: Final = ("trial", "metric", "reason")
# Columns of summary.csv that are not settings of an arm.
_FRONT: Final = ("run", "trial", "arm", "repeat")
_MIDDLE: Final = (
    "kernel_release",
    "kernel_build",
    "kernel_sha256",
    "outcome",
    "left_out",
    "tables_snapshot",
    "blocks_snapshot",
    "start",
    "state",
    "host",  # where trials say it
)

Result = TypeVar(
    "Result",
    PolicyResult,
    SecondLevelResult,
    SnapshotResult,
    BlameResult,
    MomentGap,
    Finding,
    KilledProcess,
)


def _columns(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


# Tables with a row for each result of a trial, by name; their columns, and the rows of a summary.
_Rows = Iterable[Mapping[str, object]]
_DETAILS: Final[tuple[tuple[str, tuple[str, ...], Callable[[TrialSummary], _Rows]], ...]] = (
    (layout.POLICIES, _columns(PolicyResult), lambda summary: map(vars, summary.policies)),
    (
        layout.SECOND_LEVEL_POLICIES,
        _columns(SecondLevelResult),
        lambda summary: map(vars, summary.second_level),
    ),
    (layout.SNAPSHOT_FACTS, _columns(SnapshotResult), lambda summary: map(vars, summary.snapshots)),
    (layout.BLAME, _columns(BlameResult), lambda summary: map(vars, summary.blame)),
    (layout.MOMENTS, moments.HEAD, lambda summary: map(moments.as_row, summary.moments)),
    (layout.MOMENT_GAPS, _columns(MomentGap), lambda summary: map(vars, summary.moment_gaps)),
    (layout.FINDINGS, _columns(Finding), lambda summary: map(vars, summary.findings)),
    (layout.OOM_KILLS, _columns(KilledProcess), lambda summary: map(vars, summary.oom_kills)),
)


def write_summaries(run_dir: Path, summaries: Sequence[TrialSummary]) -> None:
    """Write summary.csv, summary_gaps.csv and the tables of what snapshots say."""
    settings = dict.fromkeys(key for summary in summaries for key in summary.differs)
    known = any(summary.host for summary in summaries)
    rows = [_row(summary, settings, host=known) for summary in summaries]
    write_table(run_dir, layout.SUMMARY, rows, _KEYS)
    gaps = [row for summary in summaries for row in _gap_rows(summary)]
    write_table(run_dir, layout.SUMMARY_GAPS, gaps, _GAP_COLUMNS)
    for name, columns, rows_of in _DETAILS:
        details = [row for summary in summaries for row in _detail_rows(summary, rows_of)]
        write_table(run_dir, name, details, (*_KEYS, *columns))


def add_summary(run: Run, summary: TrialSummary) -> None:
    """Write the rows of a trial behind those of others, without reading these where that can be.

    Its row of summary.csv is the last: a trial that has one has all its other rows. Raises OSError.
    """
    row = _row(summary, summary.differs, host=bool(summary.host))
    fits = [
        *(
            append_to_table(run.directory, name, _detail_rows(summary, rows_of), (*_KEYS, *columns))
            for name, columns, rows_of in _DETAILS
        ),
        append_to_table(run.directory, layout.SUMMARY_GAPS, _gap_rows(summary), _GAP_COLUMNS),
        append_to_table(run.directory, layout.SUMMARY, [row], _KEYS),
    ]
    if not all(fits):  # the first with a setting or a host, or a table of an older version
        others = [one for one in saved(run) if one.trial != summary.trial]
        write_summaries(run.directory, [*others, summary])


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
    except (FileNotFoundError, KeyError, TypeError, ValueError, csv.Error):
        return []


def _gap_rows(summary: TrialSummary) -> list[Mapping[str, object]]:
    return [
        {"trial": summary.trial, "metric": metric, "reason": reason}
        for metric, reason in summary.gaps.items()
    ]


def _detail_rows(
    summary: TrialSummary, rows_of: Callable[[TrialSummary], _Rows]
) -> list[Mapping[str, object]]:
    return [{"run": summary.run, "trial": summary.trial, **row} for row in rows_of(summary)]


def _row(summary: TrialSummary, settings: Iterable[str], *, host: bool) -> dict[str, object]:
    return {
        "run": summary.run,
        "trial": summary.trial,
        "arm": summary.arm,
        "repeat": summary.repeat,
        **{key: summary.differs.get(key, "") for key in settings},
        "kernel_release": summary.kernel_release,
        "kernel_build": summary.kernel_build,
        "kernel_sha256": summary.kernel_sha256,
        "outcome": summary.outcome,
        "left_out": summary.left_out,
        "tables_snapshot": summary.tables_snapshot,
        "blocks_snapshot": summary.blocks_snapshot,
        "start": summary.start,
        "state": summary.state,
        **({"host": summary.host} if host else {}),
        **{name: summary.metrics.get(name) for name in METRICS},
    }


def _saved(run: Run) -> list[TrialSummary]:
    tables = _read_tables(run)
    gaps: dict[str, dict[str, str]] = {}
    for row in tables[layout.SUMMARY_GAPS]:
        gaps.setdefault(row["trial"], {})[row["metric"]] = row["reason"]
    policies = _by_trial(tables, layout.POLICIES, PolicyResult)
    second_level = _by_trial(tables, layout.SECOND_LEVEL_POLICIES, SecondLevelResult)
    snapshots = _by_trial(tables, layout.SNAPSHOT_FACTS, SnapshotResult)
    blame = _by_trial(tables, layout.BLAME, BlameResult)
    moment_gaps = _by_trial(tables, layout.MOMENT_GAPS, MomentGap)
    read: dict[str, list[Moment]] = {}
    for row in tables.get(layout.MOMENTS, ()):
        moment, gaps_of_version = moments.from_row(row)
        read.setdefault(row["trial"], []).append(moment)
        moment_gaps.setdefault(row["trial"], []).extend(gaps_of_version)
    findings = _by_trial(tables, layout.FINDINGS, Finding)
    oom_kills = _by_trial(tables, layout.OOM_KILLS, KilledProcess)
    known = {*_FRONT, *_MIDDLE, *METRICS}
    # While a run goes on they are in the order in which trials ended.
    place = {trial.id: number for number, trial in enumerate(run.plan.trials)}
    rows = sorted(tables[layout.SUMMARY], key=lambda row: place.get(row["trial"], len(place)))
    return [
        TrialSummary(
            run=row["run"],
            trial=row["trial"],
            arm=row["arm"],
            repeat=int(row["repeat"]),
            differs={key: value for key, value in row.items() if key not in known and value},
            kernel_release=row["kernel_release"],
            outcome=row["outcome"],
            metrics={name: _parsed(row[name]) for name in METRICS if row.get(name)},
            gaps=gaps.get(row["trial"], {}),
            tables_snapshot=row["tables_snapshot"],
            blocks_snapshot=row["blocks_snapshot"],
            start=row["start"],
            state=row["state"],
            policies=tuple(policies.get(row["trial"], ())),
            second_level=tuple(second_level.get(row["trial"], ())),
            snapshots=tuple(snapshots.get(row["trial"], ())),
            blame=tuple(blame.get(row["trial"], ())),
            moments=tuple(read.get(row["trial"], ())),
            moment_gaps=tuple(moment_gaps.get(row["trial"], ())),
            kernel_build=row["kernel_build"],
            kernel_sha256=row["kernel_sha256"],
            findings=tuple(findings.get(row["trial"], ())),
            oom_kills=tuple(oom_kills.get(row["trial"], ())),
            left_out=row["left_out"],
            host=row.get("host", ""),
        )
        for row in rows
    ]


def _read_tables(run: Run) -> Tables:
    """The run's tables as this version has them. Of an older version, some may be missing."""
    must = (layout.SUMMARY, layout.SUMMARY_GAPS)
    may = [name for name, _, _ in _DETAILS if (run.directory / name).exists()]
    tables = {name: _read_csv(run.directory / name) for name in (*must, *may)}
    return migrated_tables(tables, run.meta.schema_version)


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path}: a row has more or fewer cells than there are columns")
    return rows


def _parsed(text: str) -> Value:
    try:
        value = number(parse_json(text))
    except ValueError:
        return text
    return text if value is None else value


def _by_trial(tables: Tables, name: str, kind: type[Result]) -> dict[str, list[Result]]:
    """Rows of a table as records of `kind`, by trial; none where an older run has no such table."""
    found: dict[str, list[Result]] = {}
    for row in tables.get(name, ()):
        known = {
            field.name: _typed(row[field.name], str(field.type))
            for field in fields(kind)
            if field.name in row
        }
        found.setdefault(row["trial"], []).append(kind(**known))
    return found


def _typed(text: str, annotation: str) -> Any:  # what the annotation of a record's field says
    kind, _, optional = annotation.partition(" | ")
    if optional and not text:
        return None
    return {"int": int, "float": float, "str": str}[kind](text)

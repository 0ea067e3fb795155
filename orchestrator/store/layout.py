"""Names and versions in a run folder (docs/run-folder.md is the same in words)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from orchestrator.errors import BadInputError

PLAN: Final = "plan.json"
META: Final = "meta.json"
SUMMARY: Final = "summary.csv"
SUMMARY_GAPS: Final = "summary_gaps.csv"
POLICIES: Final = "policies.csv"
SECOND_LEVEL_POLICIES: Final = "second_level_policies.csv"
SNAPSHOT_FACTS: Final = "snapshots.csv"
BLAME: Final = "blame.csv"
MOMENTS: Final = "moments.csv"
MOMENT_GAPS: Final = "moments_gaps.csv"
FINDINGS: Final = "findings.csv"
OOM_KILLS: Final = "oom_kills.csv"
REPORT: Final = "report.html"
JUNIT: Final = "junit.xml"
METRICS: Final = "metrics.prom"
TIME: Final = "time.json"
GATE: Final = "gate.json"
TRIALS: Final = "trials"
LOST: Final = "lost"
BOOTS: Final = "boots"

ROOM: Final = ".room"  # kept free while a run or a trial is written, for what says how it ended

OBSERVATIONS: Final = "observations.parquet"
STREAM: Final = "observations.arrows"
EVENTS: Final = "events.jsonl"
CONSOLE: Final = "console.log"
HOST_CONSOLE: Final = "host-console.log"
SNAPSHOTS: Final = "snapshots"
UNIT: Final = "unit.json"

# Ids name folders and are typed by people and printed to terminals: nothing else may stand in them.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=,-]{0,127}")


class Status(StrEnum):
    """How far a run came. `KILLED` and `UNKNOWN` are never written: a reader concludes them."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KILLED = "killed"  # meta.json says running, and the process that wrote it is gone
    UNKNOWN = "unknown"  # meta.json says running, and it was written on another machine


def is_id(value: str) -> bool:
    """Whether it can name a folder inside another one and nowhere else."""
    return _ID.fullmatch(value) is not None


def checked_id(kind: str, value: str) -> str:
    """`value`, if it can name a folder inside another one and nowhere else."""
    if not is_id(value):
        raise BadInputError(
            f"{value[:80]!r} cannot be the id of a {kind}",
            hint="use letters, digits and . _ + @ = , - with a letter or digit first, at most 128",
        )
    return value

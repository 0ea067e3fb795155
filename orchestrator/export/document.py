"""What `show --json` prints of a run, as typed classes: docs/json.md is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, create_model

from orchestrator.analysis.arms import TrialView
from orchestrator.analysis.attribution import Attribution, CheckedSnapshot
from orchestrator.analysis.conditions import Condition
from orchestrator.analysis.model_check import ModelCheck
from orchestrator.analysis.run import RunAnalysis
from orchestrator.export.run_row import Document, RunRow, run_row
from orchestrator.probes import DeclaredSeries
from orchestrator.records.summary import (
    BlameResult,
    Finding,
    KilledProcess,
    Moment,
    MomentGap,
    SecondLevelResult,
    SnapshotResult,
    Value,
)
from orchestrator.summary import PolicyResult, TimeSpent
from orchestrator.summary.moments import COLUMNS
from orchestrator.verdict import ExpectationResult, GateResult


class TimeDocument(Document):
    """Where the time of a run went, in seconds of its process."""

    wall_seconds: float
    """From the start of the process until the report was written."""
    image_seconds: float
    """Looking for the guest's image, or building it."""
    starting_seconds: float
    """Boots, set-up, saves and restores."""
    steps_seconds: float
    """The steps of trials."""
    overhead_seconds: float
    """The rest: the orchestrator's own."""
    overhead_share: float
    """That, as a share of all, from `0` to `1`."""

    @classmethod
    def of(cls, spent: TimeSpent) -> Self:
        """The same with its unit in each name."""
        seconds = {f"{name}_seconds": value for name, value in vars(spent).items()}
        return cls(**seconds, overhead_seconds=spent.overhead, overhead_share=spent.overhead / spent.wall)


class MomentKeys(Document):
    """One row of moments.csv; the other columns are those that probes declare with their series."""

    moment: str
    """Its name, as the scenario has it."""
    seconds: float
    """Seconds since the trial began."""

    @classmethod
    def of(cls, moment: Moment) -> Self:
        """Of a moment of a trial."""
        return cls(moment=moment.moment, seconds=moment.seconds, **moment.readings)


def _key(declared: DeclaredSeries) -> tuple[Any, Any]:
    origin = declared.series.origin.value.capitalize()
    return float | None, Field(description=f"{origin}: series `{declared}` (docs/run-folder.md).")


if TYPE_CHECKING:  # a class that is made here is no type to mypy
    MomentDocument = MomentKeys
else:
    MomentDocument = create_model(
        "MomentDocument", __base__=MomentKeys, **{name: _key(one.declared) for name, one in COLUMNS.items()}
    )


class TrialDocument(Document):
    """One trial: its row of summary.csv and its rows of the other tables."""

    trial: str
    """The trial's id: the name of its folder."""
    arm: str
    """Its arm."""
    repeat: int
    """Which execution of the arm it is, from `1`."""
    differs: Mapping[str, str]
    """The settings in which its arm differs from the others."""
    kernel_release: str
    """`uname -r` of the guest."""
    kernel_build: str
    """`uname -v` of the guest."""
    kernel_sha256: str
    """Hash of the kernel's file."""
    outcome: str
    """`completed`, or how it ended."""
    error: str
    """What went wrong; empty where it completed."""
    hint: str
    """What to do about it."""
    metrics: Mapping[str, Value]
    """Headline metrics that could be had, by name (docs/run-folder.md): bytes, seconds, counts, words."""
    gaps: Mapping[str, str]
    """Why each of the other metrics is missing."""
    tables_snapshot: str
    """Label of the snapshot in which page tables are counted."""
    blocks_snapshot: str
    """Label of the snapshot in which blocks are counted."""
    start: str
    """`warm` (from saved memory) or `cold`."""
    state: str
    """Key of the saved memory; trials with the same one started from the same boot."""
    host: str
    """Name of the host that it ran on; empty where the run does not say."""
    policies: tuple[PolicyResult, ...]
    """policies.csv: what each policy would have done, modelled."""
    second_level_policies: tuple[SecondLevelResult, ...]
    """second_level_policies.csv: what each policy would free of KVM's tables, modelled."""
    snapshots: tuple[SnapshotResult, ...]
    """snapshots.csv."""
    blame: tuple[BlameResult, ...]
    """blame.csv."""
    moments: tuple[MomentDocument, ...]
    """moments.csv."""
    moment_gaps: tuple[MomentGap, ...]
    """moments_gaps.csv."""
    findings: tuple[Finding, ...]
    """findings.csv: what must not be."""
    oom_kills: tuple[KilledProcess, ...]
    """oom_kills.csv: whom OOM killers ended, and with what."""

    @classmethod
    def of(cls, trial: TrialView) -> Self:
        """Of a trial that has begun."""
        summary = trial.summary
        same = {name: getattr(summary, name) for name in cls.model_fields if hasattr(summary, name)}
        same["moments"] = tuple(MomentDocument.of(one) for one in summary.moments)
        error, hint = (trial.error, trial.hint) if trial.failed else ("", "")
        return cls(**same, second_level_policies=summary.second_level, error=error, hint=hint)


class GateDocument(Document):
    """What the baseline said of the run; the fields of gate.json, and whether it passed."""

    baseline: str
    """The run that the baseline was made of."""
    fail_on: str
    """What does not pass: `regression`, `change` or `nothing`."""
    level: float
    """Family-wise error rate over the metrics of an arm."""
    changes: tuple[Mapping[str, Any], ...]
    """Each metric of each arm: `arm`, `metric`, `result`, `estimate`, `relative`, `low`, `high`, `before`,
    `after`, `reason`."""
    refused: str
    """Why the two cannot be compared; empty where they can."""
    forced: tuple[str, ...]
    """Why they would have been refused, had it not been forced."""
    notes: tuple[str, ...]
    """Differences that are not refused."""
    source: str
    """The baseline's file."""
    varies: tuple[str, ...]
    """What was meant to differ."""
    tolerance: float
    """Share of the baseline by which a metric may be worse."""
    passed: bool
    """Whether the run keeps to the baseline."""

    @classmethod
    def of(cls, gate: GateResult) -> Self:
        """The same, and whether it passed."""
        fields = {**vars(gate), "changes": tuple(vars(change) for change in gate.changes)}
        return cls(**fields, passed=gate.passed)


class RunDocument(RunRow):
    """A run as `show --json` prints it: bytes, seconds, shares from 0 to 1. What could not be had is null."""

    directory: str
    """The run's folder."""
    conclusions: tuple[str, ...]
    """What came out, in sentences."""
    conditions: tuple[Condition, ...]
    """What guests are made of and what executed them; `emulated` says whether times and rates count."""
    emulated: bool
    """Whether a trial ran under TCG: then no time and no rate is comparable with real machines."""
    time: TimeDocument | None
    """Where the time went; null where trials ran in parallel, or the run was resumed or did not end."""
    trials: tuple[TrialDocument, ...]
    """Every trial that has begun, arm by arm."""
    expect: tuple[ExpectationResult, ...]
    """The scenario's expectations, judged."""
    gate: GateDocument | None
    """What a baseline said; null where the run was compared with none."""
    attribution_check: tuple[CheckedSnapshot, ...]
    """Attribution check: what workloads put into memory, and what blocks were blamed on."""
    attribution: tuple[Attribution, ...]
    """Precision and recall of each class."""
    model_check: tuple[ModelCheck, ...]
    """Policy `empty` of one arm against what the kernel of another did."""
    meta: Mapping[str, Any]
    """meta.json."""

    @classmethod
    def of_run(cls, analysis: RunAnalysis) -> Self:
        """Of a run that was read. Raises BadInputError where its expectations cannot be read."""
        spent, gate = analysis.time_spent, analysis.verdicts.gate
        return cls(
            **run_row(analysis.run, analysis.summaries),
            directory=str(analysis.run.directory),
            conclusions=analysis.conclusions,
            conditions=analysis.conditions.rows,
            emulated=analysis.conditions.emulated,
            time=TimeDocument.of(spent) if spent else None,
            trials=tuple(TrialDocument.of(trial) for trial in analysis.trials),
            expect=analysis.verdicts.expectation_results,
            gate=GateDocument.of(gate) if gate else None,
            attribution_check=analysis.attribution_check,
            attribution=analysis.attributions,
            model_check=analysis.model_checks,
            meta=analysis.run.meta.facts(),
        )

    def as_json(self) -> dict[str, Any]:
        """As plain dicts, lists, texts and numbers."""
        return self.model_dump(mode="json")

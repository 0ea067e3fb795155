"""Headline metrics of a trial, computed from its saved files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.headline import CATALOGUE, METRICS
from orchestrator.host_kinds import is_shared
from orchestrator.metric import COST_PHASES
from orchestrator.printable import clean
from orchestrator.probes import declared_series
from orchestrator.records.accel import ICOUNT, NO_TIMES
from orchestrator.records.events import Event, GuestKernel, GuestStart, StepEnd, TrialBegin, of_kind
from orchestrator.records.step import Mechanism, StepOutcome
from orchestrator.records.summary import TrialSummary, Value
from orchestrator.store import Run, TrialFolder
from orchestrator.summary.integrity import findings_of, integrity_of
from orchestrator.summary.moments import moments_of
from orchestrator.summary.oom_kills import oom_kills_of
from orchestrator.summary.second_level import GuestShare
from orchestrator.summary.snapshots import SnapshotFacts, after, look_at_snapshots, of_tables
from orchestrator.units import PAGE_BYTES

if TYPE_CHECKING:
    import pandas as pd

_IGNORED: Final = "times are ignored: trials may run in parallel"


@dataclass
class _Findings:
    """Metrics and gaps as they are found."""

    metrics: dict[str, Value] = field(default_factory=dict)
    gaps: dict[str, str] = field(default_factory=dict)

    def put(self, metric: str, value: float | str | None, reason: str) -> None:
        """Record the value, or why there is none."""
        if value is None:
            self.gaps[metric] = reason
        else:
            self.metrics[metric] = value

    def drop(self, metrics: Sequence[str], reason: str) -> None:
        """Take back what was read, for what it was read under."""
        for metric in metrics:
            self.metrics.pop(metric, None)
            self.gaps[metric] = reason


class _Readings:
    """Observations of a trial, looked up by source and name."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._series = {
            (str(source), str(name)): rows for (source, name), rows in frame.groupby(["source", "name"])
        }

    def values(self, source: str, name: str) -> list[float]:
        """Values that were read, in order."""
        rows = self._series.get((source, name))
        return [] if rows is None else [float(value) for value in rows["value"].dropna()]

    @property
    def of_other_guests(self) -> float | None:
        """Second-level tables of other guests of the host; a host of our own making has no others, and None
        where they were not read."""
        of_all = next(one for one in declared_series() if one.series.of_all_guests)
        place = (f"{of_all.source}/bare", of_all.series.name)
        found = self.values(*place)
        if place in self._series:
            return found[0] if found else None
        return 0.0

    def why_missing(self, source: str, name: str) -> str:
        """Why `values` is empty."""
        rows = self._series.get((source, name))
        if rows is not None:
            return str(rows["gap"].iloc[-1])
        # A probe that failed as a whole could not say which readings it owed.
        reasons = [str(rows["gap"].iloc[-1]) for (one, _), rows in self._series.items() if one == source]
        return next((reason for reason in reasons if reason), f"no probe read {source}/{name}")


def summarise_trial(run: Run, trial: TrialFolder) -> TrialSummary:
    """Compute the headline metrics of a trial, also of one that is unfinished."""
    found = _Findings()
    frame = trial.observations()
    readings = _Readings(frame)
    snapshots = look_at_snapshots(trial)
    ends = of_kind(trial.events, StepEnd)
    begins, kernels, starts = (of_kind(trial.events, kind) for kind in (TrialBegin, GuestKernel, GuestStart))
    accel = _last_word(begins, "accel") or run.meta.accel
    shares_host = run.at_once and is_shared(run.plan.host)
    share = GuestShare.of(accel, readings.of_other_guests, shared=shares_host)
    _from_observations(found, readings, share)
    _from_steps(found, trial.events)
    tables_label = _tables(found, snapshots)
    blocks_label = _blocks(found, _last_unplug(ends), _before_next(ends, snapshots))
    for metric, value, reason in integrity_of(trial.events):
        found.put(metric, value, reason)
    found.put("accel", accel or None, "meta.json does not say")
    if accel == ICOUNT or run.plan.times == "ignored":
        found.drop(
            [metric.name for metric in CATALOGUE if metric.timed], NO_TIMES if accel == ICOUNT else _IGNORED
        )
    moments, moment_gaps = moments_of(trial, frame, share)
    seen_kernel = next((fact.kernel for fact in snapshots if fact.kernel), "")
    return TrialSummary(
        run=run.id,
        trial=trial.id,
        arm=trial.planned.arm,
        repeat=trial.planned.repeat,
        differs=trial.planned.differs,
        kernel_release=_last_word(kernels, "kernel_release")
        or clean(seen_kernel)
        or _planned_release(run, trial),
        outcome=trial.outcome,
        metrics={name: found.metrics[name] for name in METRICS if name in found.metrics},
        gaps={name: found.gaps[name] for name in METRICS if name in found.gaps},
        tables_snapshot=tables_label,
        blocks_snapshot=blocks_label,
        start=_last_word(starts, "start"),
        state=_last_word(starts, "state"),
        policies=tuple(result for fact in snapshots for result in fact.policies),
        second_level=tuple(row for fact in snapshots for row in fact.second_level),
        snapshots=tuple(fact.result for fact in snapshots if fact.result),
        blame=tuple(row for fact in snapshots for row in fact.blame),
        left_out=_left_out(trial),
        moments=moments,
        moment_gaps=moment_gaps,
        kernel_build=_last_word(kernels, "kernel_build"),
        kernel_sha256=_last_word(kernels, "kernel_sha256"),
        findings=findings_of(trial.events),
        oom_kills=oom_kills_of(trial.events),
        host=trial.host,
    )


def summarise_run(run: Run) -> list[TrialSummary]:
    """Summaries of every trial that has begun, in the order of the plan."""
    return [summarise_trial(run, trial) for trial in run.trials]


def _left_out(trial: TrialFolder) -> str:
    """Why a trial cannot stand beside the others: it was lost, or read while memory was still moving."""
    if trial.outcome != "completed":
        return f"did not complete: {trial.outcome}"
    ends = of_kind(trial.events, StepEnd)
    moving = next((end for end in ends if end.outcome == StepOutcome.TIMEOUT), None)
    return f"had not settled: {moving.describe or moving.action}" if moving else ""


def _last_word(events: Sequence[Event], key: str) -> str:
    """What they say in the field `key`, the latest first."""
    return next((str(word) for event in reversed(events) if (word := getattr(event, key))), "")


def _planned_release(run: Run, trial: TrialFolder) -> str:
    """The release of the kernel that the arm asks for, as meta.json has it of the image."""
    releases = run.meta.image.get("kernels")
    asked = trial.planned.differs.get("kernel", "")
    return str(releases.get(asked, "")) if isinstance(releases, Mapping) else ""


def _from_observations(found: _Findings, readings: _Readings, share: GuestShare) -> None:
    _memmap(found, readings)
    for one in declared_series():
        for headline in one.series.headlines:
            figure = headline.of(readings.values(one.source, one.series.name))
            gap = readings.why_missing(one.source, one.series.name)
            of_guest = share.take(figure, gap) if one.series.of_all_guests else (figure, gap)
            found.put(headline.metric, *of_guest)


def _memmap(found: _Findings, readings: _Readings) -> None:
    # mm/vmstat.c: nr_memmap and nr_memmap_boot at first (6.11); with _pages since they are system-wide.
    for ending in ("_pages", ""):
        hot = readings.values("guest_vmstat", f"nr_memmap{ending}")
        boot = readings.values("guest_vmstat", f"nr_memmap_boot{ending}")
        if hot and boot:
            found.put("guest_memmap_bytes", (max(hot) + max(boot)) * PAGE_BYTES, "")
            return
    found.put("guest_memmap_bytes", None, "no probe read guest_vmstat/nr_memmap* (kernels from 6.11 have it)")


def _from_steps(found: _Findings, events: Sequence[Event]) -> None:
    ends = of_kind(events, StepEnd)
    unplug = _last_unplug(ends)
    inflated = (end for end in reversed(ends) if end.takes and end.mechanism == Mechanism.BALLOON)
    balloon = next(inflated, None)
    for what in ("requested", "achieved", "shortfall"):
        _from_step(found, f"unplug_{what}_bytes", unplug, f"{what}_bytes", "unplug")
    for what in ("requested", "achieved"):
        _from_step(found, f"balloon_{what}_bytes", balloon, f"{what}_bytes", "inflate")
    if unplug is None:
        found.put("unplug_seconds", None, "no unplug step ended")
        found.put("unplug_outcome", None, "no unplug step ended")
    else:
        asked, settled = unplug.requested_ns, unplug.settled_ns
        seconds = None if asked is None or settled is None else (settled - asked) / 1e9
        found.put("unplug_seconds", seconds, "the unplug did not settle")
        found.put("unplug_outcome", unplug.outcome or None, "the unplug step says no outcome")
    for metric, key in (
        ("workload_ops_per_second", "ops_per_second"),
        ("workload_p99_seconds", "p99_seconds"),
    ):
        found.put(metric, _last_workload_value(ends, key), f"no workload reported {key}")
    for metric in (f"{phase}_instructions_per_table" for phase in COST_PHASES):
        found.put(metric, _last_workload_value(ends, metric), "no workload counted instructions")


def _tables(found: _Findings, snapshots: Sequence[SnapshotFacts]) -> str:
    """Count page tables in the snapshot that stands for the loaded guest; its label."""
    chosen = of_tables(snapshots)
    if chosen is None:
        reason = _no_snapshot(snapshots, "the trial took no snapshot with page tables")
        found.put("guest_page_tables_total", None, reason)
        found.put("guest_page_tables_empty", None, reason)
        return ""
    found.put("guest_page_tables_total", chosen.tables, "")
    found.put("guest_page_tables_empty", chosen.tables_empty, "")
    return chosen.label


def _blocks(found: _Findings, unplug: StepEnd | None, snapshots: Sequence[SnapshotFacts]) -> str:
    """Count blocks in the last snapshot after the last unplug; its label."""
    names = [name for name in METRICS if name.startswith("blocks_")]
    last = after(snapshots, unplug.t_ns) if unplug else None
    if unplug is None or last is None or last.blocks is None:
        missing = "no unplug step ended" if unplug is None else "no snapshot with blocks after the unplug"
        for name in names:
            found.put(name, None, missing if unplug is None else _no_snapshot(snapshots, missing))
        return ""
    before = unplug.value("size_before_bytes")
    plugged = None if before is None or not last.block_bytes else int(before // last.block_bytes)
    found.put("blocks_plugged", plugged, "the unplug step has no size_before_bytes, or blocks differ in size")
    found.put("blocks_plugged_after", last.blocks.blocks_plugged, "")
    found.put("blocks_unexplained", last.result.blocks_unexplained if last.result else None, "not blamed")
    for name in names:
        if name.startswith("blocks_pinned"):
            found.put(name, getattr(last.blocks, name), "")
    return last.label


def _no_snapshot(snapshots: Sequence[SnapshotFacts], reason: str) -> str:
    broken = [f"{fact.label}: {fact.problem}" for fact in snapshots if fact.problem]
    return f"{reason} ({'; '.join(broken)})" if broken else reason


def _from_step(found: _Findings, metric: str, step: StepEnd | None, key: str, action: str) -> None:
    if step is None:
        found.put(metric, None, f"no {action} step ended")
    else:
        found.put(metric, step.value(key), f"the {action} step has no {key}")


def _last_unplug(ends: Sequence[StepEnd]) -> StepEnd | None:
    """The last hot-unplug, by whatever mechanism, that asked for another size than was asked for already.

    One that asks again, after the workload has ended for example, is a question about the first.
    """
    chosen: StepEnd | None = None
    asked: float | None = None
    for end in _resizes(ends):
        before, wanted = end.value("size_before_bytes"), end.value("requested_bytes")
        sign = -1 if end.takes else 1
        now = None if before is None or wanted is None else before + sign * wanted
        if end.takes and (now is None or now != asked):
            chosen = end
        asked = now
    return chosen


def _before_next(ends: Sequence[StepEnd], snapshots: Sequence[SnapshotFacts]) -> Sequence[SnapshotFacts]:
    """Snapshots that were taken before the next resize after the one that counts."""
    unplug = _last_unplug(ends)
    later = [end.t_ns for end in _resizes(ends) if unplug and end.t_ns > unplug.t_ns]
    return [fact for fact in snapshots if not later or fact.t_ns < later[0]]


def _resizes(ends: Sequence[StepEnd]) -> list[StepEnd]:
    return [end for end in ends if end.resizes_guest]


def _last_workload_value(ends: Sequence[StepEnd], key: str) -> float | None:
    starts = (end for end in reversed(ends) if end.action == "start")
    return next((value for end in starts if (value := end.value(key)) is not None), None)

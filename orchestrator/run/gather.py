"""Trials that were executed by themselves, put together into one run folder."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import BadInputError, InfrastructureError, OrchestratorError
from orchestrator.plan import Plan
from orchestrator.records.events import TrialEnd, of_kind
from orchestrator.records.hosts import HostRecord
from orchestrator.records.unit import UnitRecord
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.run.execute import (
    AGAIN,
    RunResult,
    TrialFailure,
    must_be_alike,
    summarise,
    written_through,
)
from orchestrator.run.hosts import comparable, of_any_host
from orchestrator.run.meta import command_line
from orchestrator.store import RunWriter, layout, read_events, read_unit
from orchestrator.store.atomic import sync_directory
from orchestrator.verdict import Gate

ARRIVING: Final = ".arriving"
# What a trial's folder has; anything else in it is not ours, and stays where it is.
_FILES: Final = (
    layout.OBSERVATIONS,
    layout.EVENTS,
    layout.CONSOLE,
    layout.HOST_CONSOLE,
    layout.UNIT,
)


@dataclass(frozen=True)
class GatheredTrial:
    """A trial in a folder of its own."""

    directory: Path
    record: UnitRecord
    end: TrialEnd

    @property
    def failure(self) -> OrchestratorError | None:
        """What went wrong, as the trial's folder has it."""
        if self.end.outcome == "completed":
            return None
        end = self.end
        return InfrastructureError(
            end.error or end.outcome, details=end.details, hint=end.hint, console_tail=end.console_tail
        )


def gather(plan: Plan, folders: Sequence[Path], run_dir: Path, *, gate: Gate | None = None) -> RunResult:
    """Make a run folder of trials of the plan, which `orchestrator trial` has put into `folders`.

    A trial that is there twice counts once: the first that `resume` would not do again, else the first. One
    that is missing is a trial that failed, for `resume` to do. Raises BadInputError where a folder has trials
    of another plan, or of hosts whose trials cannot be compared.
    """
    if gate:
        gate.must_fit(plan.record())
    found = chosen([unit for folder in folders for unit in units_in(folder, plan)])
    if not found:
        raise BadInputError(
            f"no trial of this plan is in {', '.join(map(str, folders))}",
            hint="name the folders that --into of `orchestrator trial` was given",
        )
    facts = facts_of([one.record for one in found.values()])
    run = RunWriter.create(run_dir.parent, run_dir.name, plan.to_json(), facts)

    def work(run: RunWriter) -> list[TrialFailure]:
        for trial in plan.trials:
            if trial.id in found:
                put(found[trial.id], run)
        summarise(run, found)
        return list(_failures(plan, found, run.directory))

    return written_through(run, gate, work)


def units_in(folder: Path, plan: Plan) -> Iterator[GatheredTrial]:
    """The trials in a folder, by name. Raises BadInputError where one is not of the plan, or is damaged."""
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder", hint="name the folder that --into was given")
    sha256, trials = plan.sha256, {trial.id for trial in plan.trials}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path / layout.UNIT).is_file() or path.is_symlink():
            continue
        yield unit_at(path, sha256, trials)


def unit_at(path: Path, plan_sha256: str, trials: Collection[str]) -> GatheredTrial:
    """The trial in a folder of that name. Raises BadInputError where it is none of these, or is damaged."""
    record = read_unit(path)
    if record.plan_sha256 != plan_sha256:
        raise BadInputError(
            f"{path} is a trial of another plan",
            details=f"plan {record.plan_sha256} there, {plan_sha256} here",
            hint="name the plan that `orchestrator trial` was given",
        )
    if record.schema_version != SCHEMA_VERSION:
        raise BadInputError(
            f"{path} was written by another version: {record.schema_version}, here {SCHEMA_VERSION}"
        )
    if record.trial != path.name or record.trial not in trials:
        raise BadInputError(f"{path} is no trial of the plan", hint="it was renamed, or changed by hand")
    events = path / layout.EVENTS
    if events.is_symlink() or (events.exists() and not events.is_file()):
        raise BadInputError(f"{events} is not a file of ours", hint="fetch it again")
    ends = of_kind(read_events(path), TrialEnd)
    if not ends:
        raise BadInputError(f"{path} does not say how its trial ended", hint="fetch it again")
    return GatheredTrial(path, record, ends[-1])


def chosen(units: Sequence[GatheredTrial]) -> dict[str, GatheredTrial]:
    """One for each trial."""
    kept: dict[str, GatheredTrial] = {}
    for unit in units:
        before = kept.get(unit.record.trial)
        if before is None or (before.end.outcome in AGAIN and unit.end.outcome not in AGAIN):
            kept[unit.record.trial] = unit
    return kept


def most_at_once(records: Sequence[UnitRecord]) -> int:
    """At most how many of these trials ran at once on one host, which may have several names."""
    by_boot: dict[str, list[tuple[int, int]]] = {}
    for one in records:
        by_boot.setdefault(one.writer.boot_id, []).extend([(one.began_ns, 1), (one.ended_ns, -1)])
    most = 0
    for changes in by_boot.values():
        running = 0
        for _, change in sorted(changes):
            running += change
            most = max(most, running)
    return most


def facts_of(records: Sequence[UnitRecord]) -> dict[str, object]:
    """meta.json of a run of these trials. Raises BadInputError where they ran on what cannot be compared.

    Hosts may differ in their versions of QEMU and libvirt, as no trial is compared with one of another host.
    """
    first = min(records, key=lambda one: one.started_at)
    by_host: dict[str, list[UnitRecord]] = {}
    for one in sorted(records, key=lambda one: (one.host_name, one.started_at)):
        by_host.setdefault(one.host_name, []).append(one)
    for on_host in by_host.values():
        for one in on_host:
            must_be_alike(comparable(on_host[0].facts), comparable(one.facts))
            must_be_alike(of_any_host(first.facts), of_any_host(one.facts))
    facts: dict[str, object] = {
        # How long each unit took to find its image is no time of the run.
        **{name: fact for name, fact in first.facts.items() if name != "image_seconds"},
        "started_at": first.started_at,
        "command_line": command_line(),
        "trials_at_once": most_at_once(records),
    }
    if len(by_host) > 1:
        facts["hosts"] = {name: host_of(on_host).known() for name, on_host in by_host.items()}
    return facts


def host_of(records: Sequence[UnitRecord]) -> HostRecord:
    """What is known of the one host of these trials."""
    return HostRecord.joined(HostRecord.of(one.writer.hostname, one.facts) for one in records)


def _failures(plan: Plan, found: Mapping[str, GatheredTrial], run_dir: Path) -> Iterator[TrialFailure]:
    for trial in plan.trials:
        if trial.id not in found:
            yield trial.id, InfrastructureError("no folder has it", hint=f"orchestrator resume {run_dir}")
        elif failure := found[trial.id].failure:
            yield trial.id, failure


def put(trial: GatheredTrial, run: RunWriter) -> None:
    """Copy a trial into the folder of a run, where it appears whole or not at all. Raises OSError.

    Only the regular files of a trial: a link may lead anywhere, and is none of them.
    """
    source, target = trial.directory, run.trial_directory(trial.record.trial)
    fresh = run.directory / f".{target.name}.{secrets.token_hex(4)}{ARRIVING}"
    try:
        (fresh / layout.SNAPSHOTS).mkdir(parents=True)
        snapshots = source / layout.SNAPSHOTS
        inner = [] if snapshots.is_symlink() or not snapshots.is_dir() else sorted(snapshots.iterdir())
        names = [Path(name) for name in _FILES] + [Path(layout.SNAPSHOTS) / path.name for path in inner]
        for name in names:
            if (source / name).is_file() and not (source / name).is_symlink():
                shutil.copyfile(source / name, fresh / name)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    sync_directory(target.parent)

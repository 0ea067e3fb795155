"""A whole plan: one host connection, one image, trial after trial."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.analysis.run import RunAnalysis
from orchestrator.errors import BadInputError, ExitCode, OrchestratorError, host_failure
from orchestrator.host.machine import HostSetup
from orchestrator.interrupts import deferred
from orchestrator.launch.environment import TrialEnvironment, starts_warm
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import Plan, PlannedTrial, TrialSpec
from orchestrator.records.hosts import HostRecord
from orchestrator.records.plan import PlanRecord
from orchestrator.run.hosts import before_resuming, comparable, name_here, other_hosts, with_this_host
from orchestrator.run.inputs import with_inputs
from orchestrator.run.machinery import Machinery, RealMachinery
from orchestrator.run.memory import give_back, steady_malloc
from orchestrator.run.meta import command_line, provenance
from orchestrator.run.parallel import Ended, ParallelRunner, TrialTask
from orchestrator.run.unit import Unit, outcome_of
from orchestrator.store import UNFINISHED, Run, RunWriter, Status, checked_id, layout, open_run
from orchestrator.summary import add_summary, saved, summarise_trial, write_summaries
from orchestrator.verdict import Gate, write_gate_result

# Outcomes that say nothing of the guest's kernel: a trial with one of them is done again by `resume`.
AGAIN = frozenset({UNFINISHED, "unknown", "interrupted", "failed", "lost"})


TrialFailure = tuple[str, OrchestratorError]
"""A trial, and what went wrong."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `errors`: (trial, what went wrong) for each trial that did not complete."""

    directory: Path
    exit_code: ExitCode
    errors: tuple[TrialFailure, ...]
    analysis: RunAnalysis


def new_run_id(scenario: str) -> str:
    """Sortable by time, and unlike any other: `quickstart-20261123-150405-3fa2c17b`.

    Of a thousand runs that begin in one second, with 32 bits two have the same id in one of 8,600 cases.
    """
    return f"{scenario}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def execute_plan(
    plan: Plan,
    places: ProjectPaths,
    run_dir: Path,
    progress: Progress,
    *,
    connect: str | None = None,
    gate: Gate | None = None,
    machinery: Machinery | None = None,
) -> RunResult:
    """Run every trial of a plan into `run_dir`, which must not exist yet.

    A trial that fails does not stop the others. Raises what keeps all of them from running, and
    KeyboardInterrupt; the run folder says so, too.
    """
    unit = Unit.of(with_inputs(plan, places), places, progress, connect, machinery or RealMachinery())
    job = Job.of(unit, gate)
    unit.must_suit_host()
    facts = provenance(command_line())
    return job.into(RunWriter.create(run_dir.parent, run_dir.name, unit.plan.to_json(), facts))


def resume_run(
    run_dir: Path,
    places: ProjectPaths,
    progress: Progress,
    *,
    connect: str | None = None,
    gate: Gate | None = None,
    machinery: Machinery | None = None,
    again: Collection[str] = AGAIN,
) -> RunResult:
    """Run the trials of a run that are missing, or lost: with an outcome of `again`, as its plan has them.

    Raises BadInputError while the run goes on, when it is whole, and when the machine is no longer what the
    others ran on.
    """
    run = open_run(run_dir)
    must_be_resumable(run)
    plan = Plan.from_json((run_dir / layout.PLAN).read_bytes())
    missing = missing_trials(run, plan, again)
    must_miss_some(run, missing)
    unit = Unit.of(plan, places, progress, connect, machinery or RealMachinery())
    unit = replace(unit, host_name=name_here(run, unit))
    job = replace(
        Job.of(unit, gate),
        trials=missing,
        meta=before_resuming(run, unit.host_name),
        others=other_hosts(run, unit.host_name),
    )
    writer = RunWriter.resume(run_dir)
    for trial in missing:
        writer.set_aside(trial.id)
    return job.into(writer)


def must_be_resumable(run: Run) -> None:
    """Raise BadInputError while the run may still be going on."""
    if run.status in {Status.RUNNING, Status.UNKNOWN}:
        raise BadInputError(
            f"{run.id} may still be going on ({run.status})", hint="wait for it, on the machine where it runs"
        )


def must_miss_some(run: Run, missing: Collection[PlannedTrial]) -> None:
    """Raise BadInputError for a run of which nothing is missing."""
    if not missing:
        raise BadInputError(
            f"{run.id} is whole: none of its {len(run.plan.trials)} trials is missing or lost",
            hint=f"orchestrator show {run.directory}",
        )


def missing_trials(run: Run, plan: Plan, again: Collection[str] = AGAIN) -> tuple[PlannedTrial, ...]:
    """Trials of its plan that have not begun, or ended with one of `again`."""
    done = {trial.id for trial in (*run.warm_ups, *run.trials) if trial.outcome not in again}
    return tuple(trial for trial in plan.trials if trial.id not in done)


@dataclass(frozen=True)
class Job:
    """What is to be run: all trials of a plan, or some. `meta` is what the others of them ran on, if any, and
    `others` are hosts that these ran on."""

    unit: Unit
    trials: tuple[PlannedTrial, ...]
    gate: Gate | None
    meta: Mapping[str, object] = field(default_factory=dict)
    others: Mapping[str, HostRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, unit: Unit, gate: Gate | None) -> Job:
        if gate:
            gate.must_fit(unit.plan.record())
        return cls(unit, unit.plan.trials, gate)

    def into(self, run: RunWriter) -> RunResult:
        return written_through(run, self.gate, self._execute)

    def _execute(self, run: RunWriter) -> list[TrialFailure]:
        errors: list[TrialFailure] = []
        steady_malloc()
        with ExitStack() as stack:
            runtime = stack.enter_context(self.unit.machinery.runtime(run.directory))
            environment = self.unit.environment(stack, runtime, lambda facts: self._learn(run, facts))
            run.update_meta(**with_this_host(self.others, open_run(run.directory), self.unit.host_name))
            self._save_boots(run, environment)
            plan = self.unit.plan.record()
            summarise(run, ())
            running = {trial.id for trial in self.trials}
            try:
                for ended in (
                    self._side_by_side(run, environment) if self._at_once else self._in_turn(run, environment)
                ):
                    if ended.error:
                        errors.append((ended.name, ended.error))
                    running.discard(ended.name)
                    add_trial(run, plan, ended.name)
                    self.unit.progress.trial_done(ended.name, ended.outcome, ended.seconds)
                    give_back()
            finally:
                summarise(run, running)
        return errors

    @property
    def _at_once(self) -> bool:
        # The settings of a host that trials share are one trial's at a time, as are its tables.
        plan, kind = self.unit.plan, self.unit.kind
        sets = any(sets_the_host(plan.trial(trial.id)) for trial in self.trials)
        return plan.times == "ignored" and len(self.trials) > 1 and not (kind.shared and sets)

    def _learn(self, run: RunWriter, facts: Mapping[str, object]) -> None:
        must_be_alike(self.meta, comparable(facts) if self.others else facts)
        run.update_meta(**facts)

    def _in_turn(self, run: RunWriter, environment: TrialEnvironment) -> Iterator[Ended]:
        for number, trial in enumerate(self.trials, start=1):
            began = time.monotonic()
            self.unit.progress.trial(trial.id, number, len(self.trials))
            error = self.unit.execute(trial.id, environment, run.trial(trial.id))
            yield Ended(trial.id, outcome_of(error), error, time.monotonic() - began)

    def _save_boots(self, run: RunWriter, environment: TrialEnvironment) -> None:
        """Boot and save, side by side, the guests that trials start from and the cache has not.

        One that fails is not the end: its trial tries again, and says in its own folder what failed.
        """
        missing: dict[str, TrialSpec] = {}
        for plan in self._plans(environment):
            if starts_warm(plan, environment):
                spec = environment.starts.spec(plan, environment)
                if not self.unit.machinery.has_state(environment.places.cache, spec):
                    missing.setdefault(checked_id("boot", f"{spec.guest}-{spec.key}"), plan)
        if len(missing) < 2:  # nothing to do side by side: the trial makes it
            return
        began = time.monotonic()
        workers = self._workers(run, environment)
        self.unit.progress.note(f"booting and saving {len(missing)} guests, for trials to start from")
        for name in missing:  # what a resumed run had tried
            shutil.rmtree(run.directory / layout.BOOTS / name, ignore_errors=True)
        for ended in workers.run([TrialTask(plan, name) for name, plan in missing.items()]):
            said = f"not saved: {ended.error.brief}" if ended.error else "saved"
            self.unit.progress.note(f"{ended.name}: {said} after {ended.seconds:.0f} s")
        run.update_meta(boots_seconds=round(time.monotonic() - began, 3), boots_at_once=workers.most_at_once)

    def _plans(self, environment: TrialEnvironment) -> list[TrialSpec]:
        # What was found out about KVM holds for all: a trial that finds it otherwise fails, unmixed.
        plan, found = self.unit.plan, {"accel": environment.accel}
        return [plan.trial(trial.id).model_copy(update=found) for trial in self.trials]

    def _workers(self, run: RunWriter, environment: TrialEnvironment) -> ParallelRunner:
        unit = self.unit
        return unit.machinery.workers(run.directory, unit.places, unit.progress, unit.connect, environment)

    def _side_by_side(self, run: RunWriter, environment: TrialEnvironment) -> Iterator[Ended]:
        workers = self._workers(run, environment)
        most = self.meta.get("trials_at_once")
        most = most if isinstance(most, int) else 0
        for ended in workers.run([TrialTask(plan) for plan in self._plans(environment)]):
            most = max(most, workers.most_at_once)
            # Before the trial is summed up: figures of its host depend on it.
            run.update_meta(trials_at_once=most)
            yield ended


def sets_the_host(trial: TrialSpec) -> bool:
    """Whether a trial changes settings or tables that all guests of its host share."""
    return trial.host_setup != HostSetup() or any(step.load().of_whole_host for step in trial.steps)


def summarise(run: RunWriter, fresh: Collection[str]) -> None:
    """Write summaries of trials that have begun, in the order of the plan; of the fresh ones made anew."""
    opened = open_run(run.directory)
    known = {one.trial: one for one in saved(opened)}
    for trial in opened.trials:
        if trial.id in fresh or trial.id not in known:
            known[trial.id] = summarise_trial(opened, trial)
    write_summaries(run.directory, [known[trial.id] for trial in opened.trials])


def add_trial(run: RunWriter, plan: PlanRecord, trial: str) -> None:
    """Add the summary of a trial that has ended. What it takes does not depend on how many there are."""
    opened = run.reading(plan)
    if folder := opened.trial(trial):
        add_summary(opened, summarise_trial(opened, folder))


def written_through(
    run: RunWriter, gate: Gate | None, work: Callable[[RunWriter], Sequence[TrialFailure]]
) -> RunResult:
    """Have `work` fill the folder of a run, which says in the end what came of it.

    `work` returns the trials that failed. Raises what it raises.
    """
    status, code = Status.FAILED, ExitCode.INFRASTRUCTURE
    failure: OrchestratorError | None = None
    try:
        # What was said of a run before it was resumed does not hold any more.
        (run.directory / layout.GATE).unlink(missing_ok=True)
        errors = work(run)
        analysis = RunAnalysis.open(run.directory)
        code = judged(analysis, gate)
        code = ExitCode.INFRASTRUCTURE if errors else code
        status = Status.FAILED if errors else Status.COMPLETED
    except KeyboardInterrupt:
        status, code = Status.INTERRUPTED, ExitCode.INTERRUPTED
        raise
    except OrchestratorError as error:
        code, failure = error.exit_code, error
        raise
    except OSError as error:
        failure = host_failure(error)
        raise failure from error
    except Exception as error:
        failure = OrchestratorError(f"internal error: {error!r}")
        raise
    finally:
        with deferred():
            why = {"error": failure.brief, "error_details": failure.details[:4000]} if failure else {}
            run.finish(status, code, **why)
    return RunResult(run.directory, code, tuple(errors), analysis.ended())


def judged(analysis: RunAnalysis, gate: Gate | None = None) -> ExitCode:
    """The exit code of a run whose trials completed: by its expectations, and a gate, which is kept."""
    met = all(one.met for one in analysis.verdicts.expectation_results)
    if gate:
        outcome = gate.judge(analysis.verdicts.figures)
        write_gate_result(analysis.run.directory, outcome)
        met &= outcome.passed
    return ExitCode.COMPLETED if met else ExitCode.EXPECTATION_FAILED


def must_be_alike(before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Trials of one run ran alike, or they cannot be compared."""
    for key in ("accel", "hypervisor", "image"):
        if key in before and key in now and before[key] != now[key]:
            raise BadInputError(
                f"the trials that are there ran with another {key}: {before[key]}",
                details=f"now it is: {now[key]}",
                hint="run the scenario again as a whole",
            )

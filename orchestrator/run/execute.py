"""A whole plan: one host connection, one image, trial after trial."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import BadInputError, ExitCode, OrchestratorError
from orchestrator.guest.definition import GuestDefinition, load_definition
from orchestrator.guest.image import ensure_image
from orchestrator.guest.keys import ensure_keys
from orchestrator.host.accel import Acceleration, choose
from orchestrator.host.libvirt_host import open_host
from orchestrator.host.runtime import runtime_folder
from orchestrator.interrupts import deferred
from orchestrator.plan import Plan, PlannedStep
from orchestrator.run.meta import command_line, guest_facts, provenance
from orchestrator.run.places import Places
from orchestrator.run.progress import Progress
from orchestrator.run.start import Lab, guest_programs, planned_workloads
from orchestrator.run.trial import run_trial
from orchestrator.store import RunWriter, Status, open_run
from orchestrator.summary import TrialSummary, summarise_trial, write_summaries


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `errors`: (trial, what went wrong) for each trial that did not complete."""

    directory: Path
    exit_code: ExitCode
    errors: tuple[tuple[str, OrchestratorError], ...]
    summaries: tuple[TrialSummary, ...]


def new_run_id(scenario: str) -> str:
    """Sortable by time, and unlike any other: `quickstart-20261123-150405-3f`."""
    return f"{scenario}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(1)}"


def execute_plan(
    plan: Plan, places: Places, run_dir: Path, progress: Progress, *, connect: str | None = None
) -> RunResult:
    """Run every trial of a plan into `run_dir`, which must not exist yet.

    A trial that fails does not stop the others. Raises what keeps all of them from running, and
    KeyboardInterrupt; the run folder says so, too.
    """
    definition = load_definition(places.guests / f"{plan.guest}.yaml")
    # A bad one is told first. All arms get the programs of all: so they can start from the same state.
    programs = guest_programs(planned_workloads(_workload_steps(plan), places), places)
    facts = provenance(command_line(), places.guests.parent)
    run = RunWriter.create(run_dir.parent, run_dir.name, plan.to_json(), facts)
    status, code = Status.FAILED, ExitCode.INFRASTRUCTURE
    try:
        errors, summaries = _execute(
            plan, definition, places, run, programs=programs, progress=progress, connect=connect
        )
        code = ExitCode.INFRASTRUCTURE if errors else ExitCode.COMPLETED
        status = Status.FAILED if errors else Status.COMPLETED
    except KeyboardInterrupt:
        status, code = Status.INTERRUPTED, ExitCode.INTERRUPTED
        raise
    except OrchestratorError as error:
        code = error.exit_code
        run.update_meta(error=error.brief, error_details=error.details[:4000])
        raise
    finally:
        with deferred():
            run.finish(status, code)
    return RunResult(run.directory, code, tuple(errors), tuple(summaries))


def _workload_steps(plan: Plan) -> list[PlannedStep]:
    """The steps of all arms that name a workload, each distinct one once."""
    arms = {trial.arm: trial.steps for trial in plan.trials}  # the trials of an arm have the same
    named = [step for steps in arms.values() for step in steps if "workload" in step.params]
    return list({step.model_dump_json(): step for step in named}.values())


def _execute(
    plan: Plan,
    definition: GuestDefinition,
    places: Places,
    run: RunWriter,
    *,
    programs: Mapping[str, Path],
    progress: Progress,
    connect: str | None,
) -> tuple[list[tuple[str, OrchestratorError]], list[TrialSummary]]:
    errors: list[tuple[str, OrchestratorError]] = []
    summaries: list[TrialSummary] = []
    with ExitStack() as stack:
        runtime = stack.enter_context(runtime_folder(run.directory))
        keys = ensure_keys(places.cache)
        began = time.monotonic()
        image = ensure_image(definition, keys, places.cache, progress=progress.note)
        run.update_meta(image_seconds=round(time.monotonic() - began, 3))
        acceleration = _accelerate(plan, image.boot_files(definition.default_kernel).kernel)
        progress.note(acceleration.reason)
        host = stack.enter_context(open_host(connect, runtime, places.cache))
        run.update_meta(**guest_facts(host, acceleration, image))
        lab = Lab(host, image, keys, places, acceleration.name, definition, runtime, progress, programs)
        for number, trial in enumerate(plan.trials, start=1):
            began = time.monotonic()
            progress.trial(trial.id, number, len(plan.trials))
            error: OrchestratorError | None = None
            try:
                error = run_trial(plan.trial(trial.id), lab, run.trial(trial.id))
            finally:
                opened = open_run(run.directory)
                summaries += [summarise_trial(opened, one) for one in opened.trials if one.id == trial.id]
                write_summaries(run.directory, summaries)
            if error:
                errors.append((trial.id, error))
            progress.trial_done(trial.id, summaries[-1].outcome, time.monotonic() - began)
    return errors, summaries


def _accelerate(plan: Plan, kernel: Path) -> Acceleration:
    chosen = choose(plan.accel, kernel)
    if plan.accel == "kvm" and chosen.name != "kvm":
        raise BadInputError(
            f"the scenario asks for KVM: {chosen.reason}",
            hint="use `accel: auto`, or see: orchestrator doctor",
        )
    return chosen

"""The unit of a run: one trial, executed. Runs call it in their own process, workers and `trial` in theirs.

A run has the trial's folder in its own from the beginning, where one sees how far it came. By itself
(`execute_alone`) a trial is written beside its place and renamed into it when it has ended: it is whole
or not there. What a kill leaves is named by the runtime folder, from which `clean` knows it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import BadInputError, GuestError, OrchestratorError
from orchestrator.guest.definition import GuestDefinition, load_definition
from orchestrator.host.accel import Acceleration
from orchestrator.host_kinds import HostKind, Site
from orchestrator.interrupts import deferred
from orchestrator.launch.environment import TrialEnvironment
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import Plan, PlannedStep
from orchestrator.records.unit import UnitRecord
from orchestrator.run.inputs import must_have_inputs
from orchestrator.run.machinery import Learn, Machinery
from orchestrator.run.meta import command_line, guest_facts, provenance
from orchestrator.run.trial import run_boot
from orchestrator.store import SCHEMA_VERSION, TrialWriter, layout
from orchestrator.store.atomic import replace_text, sync_directory
from orchestrator.store.liveness import this_process
from orchestrator.store.writer import jsonable

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+\[\]-]{0,63}")
_UNFINISHED = re.compile(r"\..{1,128}\.[0-9a-f]{8}\.unit")


@dataclass(frozen=True)
class Unit:
    """What it takes to execute trials of a plan on a host: all of it looked at, and none of it begun.

    `host_name` is what trials say of where they ran; statistics keep hosts apart by it.
    """

    plan: Plan
    definition: GuestDefinition
    programs: Mapping[str, Path]
    places: ProjectPaths
    progress: Progress
    connect: str | None
    machinery: Machinery
    kind: HostKind
    host_name: str

    @classmethod
    def of(
        cls, plan: Plan, places: ProjectPaths, progress: Progress, connect: str | None, machinery: Machinery
    ) -> Unit:
        """Raises BadInputError where files are not those of the plan, or a workload is a bad one."""
        must_have_inputs(plan, places)
        definition = load_definition(places.guests / f"{plan.guest}.yaml")
        # A bad one is reported first. All arms get the programs of all: they may start from the same state.
        programs = machinery.programs(_workload_steps(plan), places)
        kind = machinery.host(connect or plan.host)
        return cls(plan, definition, programs, places, progress, connect, machinery, kind, kind.machine_name)

    def must_suit_host(self) -> None:
        """Raise what can be said of the host before anything is begun."""
        for problem in self.kind.problems(self.plan.accel):
            raise problem

    def environment(self, stack: ExitStack, runtime: Path, learn: Learn) -> TrialEnvironment:
        """What trials share: a host, an image, keys. `learn` is given what is found of the host."""
        plan, places, progress = self.plan, self.places, self.progress
        keys = self.machinery.keys(places.cache)
        began = time.monotonic()
        image = self.machinery.image(self.definition, keys, places.cache, progress.note)
        learn({"image_seconds": round(time.monotonic() - began, 3)})
        kernel = image.kernel_to_try(self.definition.default_kernel)
        site = Site(plan.acceleration, kernel, runtime, places, keys, progress.note)
        opened = stack.enter_context(self.kind.open(site))
        acceleration = opened.acceleration
        _must_be_kvm_if_asked(plan, acceleration)
        progress.note(acceleration.explanation)
        learn({**opened.facts, **guest_facts(acceleration, image)})
        return TrialEnvironment(
            opened.libvirt,
            image,
            keys,
            places,
            acceleration.name,
            self.definition,
            runtime,
            progress,
            self.programs,
            opened.starts,
            learn,
            host_name=self.host_name,
        )

    def execute(
        self, trial_id: str, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        """Execute a trial on a host that is open. Returns what went wrong, which its folder says as well."""
        return self.machinery.run_trial(self.plan.trial(trial_id), environment, writer)

    def execute_from_here(
        self,
        trial_id: str,
        writer: TrialWriter,
        runtime: Path,
        *,
        found: Learn,
        learn: Learn,
        boot: bool = False,
    ) -> OrchestratorError | None:
        """As `execute`, on a host that is opened for it. With `boot`, only what it starts from is made.

        `found` is given what was found of the host before the trial, `learn` what the trial learns itself.
        Raises what keeps the trial from having a host.
        """
        with ExitStack() as stack:
            environment = replace(self.environment(stack, runtime, found), learn=learn)
            if boot:
                return run_boot(self.plan.trial(trial_id), environment, writer)
            return self.execute(trial_id, environment, writer)


@dataclass(frozen=True)
class TrialFile:
    """A trial that was executed by itself: its folder, how it ended, and after how long."""

    directory: Path
    outcome: str
    error: OrchestratorError | None
    seconds: float


@dataclass
class _Facts:
    """What is learned of the host."""

    known: dict[str, object] = field(default_factory=dict)

    def learn(self, facts: Mapping[str, object]) -> None:
        self.known |= facts


def execute_alone(unit: Unit, trial_id: str, into: Path, host: str | None = None) -> TrialFile:
    """Execute a trial and put its folder, whole, into the folder `into`, with unit.json.

    `host` is what to call the host; without it, it is called as its machine. A trial that ended is there
    however it ended; one that was interrupted, or had no host, is not. Raises BadInputError where it is there
    already, the plan has no such trial or the host no such name, and what keeps it from beginning.
    """
    unit.plan.trial(trial_id)
    if host is not None:
        unit = replace(unit, host_name=checked_host_name(host))
    unit.must_suit_host()
    place = into / trial_id
    _must_be_free(place)
    into.mkdir(parents=True, exist_ok=True)
    fresh = into.resolve() / f".{trial_id}.{secrets.token_hex(4)}.unit"
    facts = _Facts(provenance(command_line()))
    started_at, began_ns = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic_ns()
    with ExitStack() as stack:
        # It says whose `fresh` is, and so has to be there before it, and until after it.
        runtime = stack.enter_context(unit.machinery.runtime(fresh))
        stack.callback(shutil.rmtree, fresh, ignore_errors=True)
        writer = TrialWriter(fresh, trial_id)
        stack.callback(writer.close)
        error = unit.execute_from_here(trial_id, writer, runtime, found=facts.learn, learn=facts.learn)
        ended_ns = time.monotonic_ns()
        record = UnitRecord(
            schema_version=SCHEMA_VERSION,
            trial=trial_id,
            host=unit.host_name,
            plan_sha256=unit.plan.sha256,
            writer=this_process(),
            started_at=started_at,
            began_ns=began_ns,
            ended_ns=ended_ns,
            facts=jsonable(facts.known),
        )
        replace_text(fresh / layout.UNIT, record.to_json())
        with deferred():
            _publish(fresh, place)
    return TrialFile(place, outcome_of(error), error, (ended_ns - began_ns) / 1e9)


def checked_host_name(name: str) -> str:
    """A name for a host, which gets into tables and sentences. Raises BadInputError."""
    if not _HOST_NAME.fullmatch(name):
        raise BadInputError(
            f"{name!r} is no name for a host",
            hint="use up to 64 letters, digits and . _ : @ / + - [ ], the first a letter or digit",
        )
    return name


def unfinished_unit(named: str) -> Path | None:
    """The folder of a trial that was executed by itself and killed, if a runtime folder names one of ours."""
    path = Path(named)
    if not path.is_absolute() or not _UNFINISHED.fullmatch(path.name):
        return None
    try:
        ours = path.lstat().st_uid == os.getuid()
    except OSError:
        return None
    return path if ours and path.is_dir() and not path.is_symlink() else None


def outcome_of(error: OrchestratorError | None) -> str:
    """What a trial is recorded with that ended so."""
    if error is None:
        return "completed"
    return error.outcome if isinstance(error, GuestError) else "failed"


def _must_be_free(place: Path) -> None:
    if place.exists():
        raise BadInputError(
            f"{place} exists: a trial is written once", hint=f"name another folder, or: rm -r {place}"
        )


def _publish(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError:
        _must_be_free(place)  # another unit was first
        raise
    sync_directory(place.parent)


def _workload_steps(plan: Plan) -> list[PlannedStep]:
    """The steps of all arms that name a workload, each distinct one once."""
    arms = {trial.arm: trial.steps for trial in plan.trials}  # the trials of an arm have the same
    named = [step for steps in arms.values() for step in steps if "workload" in step.params]
    return list({step.model_dump_json(): step for step in named}.values())


def _must_be_kvm_if_asked(plan: Plan, chosen: Acceleration) -> None:
    if plan.accel == "kvm" and chosen.name != "kvm":
        raise BadInputError(
            f"the scenario asks for KVM, or other trials ran under it: {chosen.explanation}",
            hint="use `accel: auto`, or see: orchestrator doctor",
        )

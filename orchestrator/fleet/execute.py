"""A run whose trials a fleet does: as `orchestrator.run.execute`, with hosts in place of this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, InfrastructureError, OrchestratorError
from orchestrator.fleet.archive import unpack
from orchestrator.fleet.card import HostCard, this_program
from orchestrator.fleet.config import Fleet
from orchestrator.fleet.dispatch import Arrival, Dispatcher, Handed, Hands
from orchestrator.fleet.needs import must_be_able, must_run_on_its_host, needs_by_arm
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import Plan, PlannedTrial
from orchestrator.records.accel import KVM
from orchestrator.records.hosts import HostRecord
from orchestrator.records.unit import UnitRecord
from orchestrator.run import AGAIN, RunResult
from orchestrator.run.execute import (
    TrialFailure,
    add_trial,
    missing_trials,
    must_be_alike,
    must_be_resumable,
    must_miss_some,
    summarise,
    written_through,
)
from orchestrator.run.gather import ARRIVING, GatheredTrial, facts_of, host_of, put, unit_at, units_in
from orchestrator.run.hosts import comparable, of_any_host, other_hosts
from orchestrator.run.inputs import must_have_inputs, with_inputs
from orchestrator.run.meta import command_line, provenance
from orchestrator.run.rounds import rounds
from orchestrator.store import RunWriter, layout, open_run
from orchestrator.verdict import Gate

_LOOK_SECONDS: Final = 0.2
# Summaries of a run that goes on are for people who look into it: they take no more of its time than this.
_SUMMING_SHARE: Final = 0.05
_TELL_SECONDS: Final = 2.0
_MOST_SAID: Final = 50

Connect = Callable[[Fleet, str, Plan, Callable[[str], None]], AbstractContextManager[Hands]]
"""A fleet, the id of a run, its plan, and what takes lines for people."""


def connected(
    fleet: Fleet, run_id: str, plan: Plan, note: Callable[[str], None]
) -> AbstractContextManager[Hands]:
    """To a fleet's head. Raises InfrastructureError, and BadInputError where Dask is not installed."""
    from orchestrator.fleet.extra import must_be_installed

    must_be_installed()
    from orchestrator.fleet.engine.client import DaskHands

    return DaskHands(
        fleet, run_id, plan.to_json(), plan_sha256=plan.sha256, program=this_program(), note=note
    )


def execute_on_fleet(
    plan: Plan,
    places: ProjectPaths,
    run_dir: Path,
    progress: Progress,
    fleet: Fleet,
    *,
    gate: Gate | None = None,
    connect: Connect = connected,
) -> RunResult:
    """Have hosts do every trial of a plan; the run folder `run_dir` must not exist yet.

    Raises BadInputError where no host can, before anything starts; what keeps all trials from running; and
    KeyboardInterrupt, which ends what runs.
    """
    if gate:
        gate.must_fit(plan.record())
    must_run_on_its_host(plan)
    plan = with_inputs(plan, places)
    with ExitStack() as stack:
        hands = stack.enter_context(connect(fleet, run_dir.name, plan, progress.note))
        job = _Job(plan, plan.trials, fleet, hands, progress)
        job.must_have_hosts()
        facts = provenance(command_line())
        # What is of this machine is not of where trials run: their own facts come with the first of them.
        run = RunWriter.create(run_dir.parent, run_dir.name, plan.to_json(), facts)
        return written_through(run, gate, job.work)


def resume_on_fleet(
    run_dir: Path,
    places: ProjectPaths,
    progress: Progress,
    fleet: Fleet,
    *,
    gate: Gate | None = None,
    connect: Connect = connected,
    again: Collection[str] = AGAIN,
) -> RunResult:
    """Have hosts do the trials of a run that are missing or lost, wherever the others were done.

    Raises as `resume_run` and `execute_on_fleet`.
    """
    run = open_run(run_dir)
    must_be_resumable(run)
    plan = Plan.from_json((run_dir / layout.PLAN).read_bytes())
    trials = missing_trials(run, plan, again)
    must_miss_some(run, trials)
    if gate:
        gate.must_fit(plan.record())
    must_run_on_its_host(plan)
    if not plan.files:
        raise BadInputError(
            f"the plan of {run.id} does not say by hash what its trials read: it is of an older version",
            hint="run the scenario again",
        )
    must_have_inputs(plan, places)
    with ExitStack() as stack:
        hands = stack.enter_context(connect(fleet, run_dir.name, plan, progress.note))
        there = [one for one in units_in(run_dir / layout.TRIALS, plan) if one.end.outcome not in again]
        job = _Job(plan, trials, fleet, hands, progress, meta=of_any_host(run.meta.facts()))
        job.others = other_hosts(run, "")
        job.where = {trial.id: trial.host for trial in run.trials}
        job.records = {one.record.trial: one.record for one in there}
        job.must_have_hosts()
        writer = RunWriter.resume(run_dir)
        for path in run_dir.glob(f".*{ARRIVING}"):
            shutil.rmtree(path, ignore_errors=True)
        for trial in trials:
            writer.set_aside(trial.id)
        return written_through(writer, gate, job.work)


@dataclass
class _Job:
    """Trials of a plan that hosts are to do. `meta` is what the others of them ran on, if any."""

    plan: Plan
    trials: Sequence[PlannedTrial]
    fleet: Fleet
    hands: Hands
    progress: Progress
    meta: Mapping[str, object] = field(default_factory=dict)
    records: dict[str, UnitRecord] = field(default_factory=dict)
    others: Mapping[str, HostRecord] = field(default_factory=dict)
    """Hosts of trials that were there before."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Of those trials, the host."""
    _known: dict[str, Mapping[str, object]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _reported_at: float = 0.0
    _unsummed: set[str] = field(default_factory=set)
    _summed_at: float = field(default_factory=time.monotonic)
    _summing_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.needs = needs_by_arm(self.plan)
        self.program = this_program()
        self.sha256 = self.plan.sha256
        self.ids = frozenset(trial.id for trial in self.plan.trials)
        self._listed = self.plan.record()

    def must_have_hosts(self) -> None:
        """Raise InfrastructureError where there is no host, and BadInputError where none can do it."""
        wait = Deadline(self.fleet.text.wait)
        cards = wait_for(lambda: self.hands.hosts() or None, wait, every=_LOOK_SECONDS)
        if cards is None:
            raise InfrastructureError(
                f"no host has joined {self.fleet.text.head}",
                hint=f"on each:   orchestrator worker {self.fleet.text.head} --fleet fleet.toml",
            )
        arms = {trial.arm for trial in self.trials}
        must_be_able({arm: self.needs[arm] for arm in self.needs if arm in arms}, cards, self.program)
        for card in cards:
            if differences := self.program.differences(card.program):
                self.progress.note(
                    f"{card.name} has another program and is not used: {'; '.join(differences)}"
                )

    def work(self, run: RunWriter) -> list[TrialFailure]:
        """Have them all done into the folder of the run. Returns those that failed."""
        errors: list[TrialFailure] = []
        dispatcher = Dispatcher(
            rounds(self.plan, [trial.id for trial in self.trials], self.where),
            self.needs,
            self.hands,
            lambda arrival, handed: self._accepted(run, arrival, handed),
            self.progress,
            program=self.program,
            retries=self.fleet.text.retries,
            wait_seconds=self.fleet.text.wait,
            wanted=self._unwanted,
        )
        self._tell(run, 0, errors)
        summarise(run, ())
        try:
            for done, ended in enumerate(dispatcher.run(), start=1):
                error = ended.error or self._failure(run, ended.trial)
                if error:
                    errors.append((ended.trial, error))
                outcome = self._outcome(ended.trial, error)
                self._sum_up(run, ended.trial)
                self._tell(run, done, errors)
                record = self.records.get(ended.trial)
                seconds = (record.ended_ns - record.began_ns) / 1e9 if record else ended.seconds
                self.progress.trial_done(f"{ended.trial} on {ended.host}", outcome, seconds)
        finally:
            self._learn(run, dispatcher)
            summarise(run, self._unsummed)
        return errors

    def _tell(self, run: RunWriter, done: int, errors: Sequence[TrialFailure]) -> None:
        """What `fleet status` shows of this run."""
        now, total = time.monotonic(), len(self.trials)
        if 0 < done < total and now - self._reported_at < _TELL_SECONDS:
            return
        self._reported_at = now
        left = (now - self._began) / done * (total - done) if done else None
        said = {"run": run.run_id, "done": done, "total": total, "failed": len(errors), "seconds_left": left}
        self.hands.tell(said)

    def _unwanted(self, card: HostCard) -> str:
        """Why a host's acceleration is not that of the others; `auto` is KVM where any host has it."""
        if self.plan.acceleration != "auto":
            return ""
        known = self.meta.get("accel")
        kvm = known == KVM if known else any(not one.kvm for one in self.hands.hosts())
        return "" if kvm != bool(card.kvm) else "it has no KVM that works" if kvm else "others had no KVM"

    def _accepted(self, run: RunWriter, arrival: Arrival, handed: Handed) -> str:
        """Put what came into the run; why not, if it is not taken."""
        if arrival.packed is None:
            return arrival.error.brief if arrival.error else "nothing came"
        incoming = run.directory / f".{arrival.trial}{ARRIVING}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        try:
            unpack(arrival.packed, incoming / arrival.trial, self.fleet.text.largest_trial)
            unit = unit_at(incoming / arrival.trial, self.sha256, self.ids)
            facts = unit.record.facts
            must_be_alike(of_any_host(self.meta), of_any_host(facts))
            must_be_alike(self._known.get(handed.host.name, {}), comparable(facts))
            return self._put(run, unit, handed)
        except (BadInputError, InfrastructureError) as error:
            return f"{error.brief}; {error.details}" if error.details else error.brief
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _put(self, run: RunWriter, unit: GatheredTrial, handed: Handed) -> str:
        trial = unit.record.trial
        run.set_aside(trial)
        put(unit, run)
        if unit.end.outcome in AGAIN and handed.attempt <= self.fleet.text.retries:
            # It says nothing of the guest's kernel. It is kept, as `resume` keeps it, and done again.
            run.set_aside(trial)
            return unit.end.error or unit.end.outcome
        self.records[trial] = unit.record
        self._known.setdefault(unit.record.host_name, comparable(unit.record.facts))
        if not self.meta:
            self.meta = of_any_host(unit.record.facts)
        return ""

    def _on_host(self, name: str) -> list[UnitRecord]:
        return [record for record in self.records.values() if record.host_name == name]

    def _failure(self, run: RunWriter, trial: str) -> OrchestratorError | None:
        return unit_at(run.trial_directory(trial), self.sha256, self.ids).failure

    def _outcome(self, trial: str, error: OrchestratorError | None) -> str:
        return "lost" if error and trial not in self.records else "failed" if error else "completed"

    def _sum_up(self, run: RunWriter, trial: str) -> None:
        """Summaries of what has come, every now and then."""
        self._unsummed.add(trial)
        now = time.monotonic()
        if (now - self._summed_at) * _SUMMING_SHARE < self._summing_seconds:
            return
        fresh, self._unsummed = self._unsummed, set()
        run.update_meta(**self._facts())
        for one in sorted(fresh):
            add_trial(run, self._listed, one)
        self._summed_at = time.monotonic()
        self._summing_seconds = self._summed_at - now

    def _facts(self) -> dict[str, object]:
        if not self.records:
            return {}
        facts = facts_of(list(self.records.values()))
        names = {record.host_name for record in self.records.values()}
        hosts = {name: host.known() for name, host in self.others.items()}
        hosts |= {name: host_of(self._on_host(name)).known() for name in names}
        if len(hosts) > 1:
            facts["hosts"] = {name: hosts[name] for name in sorted(hosts)}
        return {name: fact for name, fact in facts.items() if name not in {"started_at", "command_line"}}

    def _learn(self, run: RunWriter, dispatcher: Dispatcher) -> None:
        lost = [f"{trial}: {why}" for trial, whys in dispatcher.lost.items() for why in whys]
        facts: dict[str, object] = {
            "lost_trials": lost[:_MOST_SAID],
            "broken_rounds": sorted(dispatcher.broken_rounds),
            "left_out_hosts": dict(dispatcher.left_out),
        }
        run.update_meta(**self._facts(), **{name: fact for name, fact in facts.items() if fact})

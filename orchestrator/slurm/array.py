"""A run as an array of units: submitted, followed, and put together from the folders that appear.

The run's folder is on a file system that the nodes share: each task renames its trial into `trials/`, so
that a run is whole as far as it came whatever becomes of this process. The job is named after the run, by
which `resume` finds it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, InfrastructureError, OrchestratorError
from orchestrator.host_kinds import host_kind
from orchestrator.interrupts import deferred
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import Plan
from orchestrator.printable import clean_block
from orchestrator.records.events import TrialEnd, of_kind
from orchestrator.records.unit import UnitRecord
from orchestrator.run.execute import (
    RunResult,
    TrialFailure,
    missing_trials,
    must_be_alike,
    must_be_resumable,
    must_miss_some,
    summarise,
    written_through,
)
from orchestrator.run.gather import GatheredTrial, facts_of, units_in
from orchestrator.run.inputs import must_have_inputs, with_inputs
from orchestrator.run.meta import command_line, provenance
from orchestrator.slurm.queue import Queue, Task
from orchestrator.slurm.request import FOLDER, SCRIPT, TRIALS, Site, output, script, words
from orchestrator.store import RunWriter, layout, open_run, read_events
from orchestrator.store.atomic import replace_text
from orchestrator.verdict import Gate

# How often squeue is called: at first every second, then by and by less, for one slurmctld answers all users.
_LOOK_SECONDS: Final = 10.0
_PACE: Final = 0.05
# slurmctld may be started anew meanwhile: tasks go on without it.
_SILENCE_SECONDS: Final = 600.0
# KillWait of slurm.conf, after which SIGKILL follows SIGTERM, is 30 s by default.
_END_SECONDS: Final = 120.0
# A directory that NFS has in its cache may be that much behind (acdirmax of nfs(5)).
_CACHE_SECONDS: Final = 60.0
_MOST_LOG_BYTES: Final = 4000
# Of a run's facts, what the process that submits it has said already.
_OF_THE_RUN: Final = ("started_at", "command_line", "versions")


@dataclass(frozen=True)
class Following:
    """How an array is followed: the queue, how long at most, and how often it is looked at at the least."""

    queue: Queue
    progress: Progress
    most_seconds: float
    every_seconds: float = _LOOK_SECONDS


def run_by_slurm(
    plan: Plan,
    places: ProjectPaths,
    run_dir: Path,
    site: Site,
    following: Following,
    *,
    gate: Gate | None = None,
) -> RunResult:
    """Run every trial of a plan as a task, into `run_dir`, which must not exist yet.

    A task that Slurm ends does not stop the others. Raises what keeps all of them from running, and
    KeyboardInterrupt, once the array is cancelled; the run folder says so, too.
    """
    plan = with_inputs(plan, places)
    _must_be_for_nodes(plan, gate)
    following.queue.check()
    facts = provenance(command_line())
    run = RunWriter.create(run_dir.parent, run_dir.name, plan.to_json(), facts)
    job = _Job(plan, tuple(trial.id for trial in plan.trials), site, following)
    return written_through(run, gate, job.into)


def resume_by_slurm(
    run_dir: Path, places: ProjectPaths, site: Site, following: Following, *, gate: Gate | None = None
) -> RunResult:
    """Go on with a run: follow its last array if that goes on, else submit what is missing or lost.

    Raises BadInputError while another process follows it, and when it is whole.
    """
    run = open_run(run_dir)
    must_be_resumable(run)
    plan = Plan.from_json((run_dir / layout.PLAN).read_bytes())
    _must_be_for_nodes(plan, gate)
    following.queue.check()
    array = _last_array(run_dir, plan, following.queue)
    missing = missing_trials(run, plan)
    if array is None:
        must_miss_some(run, missing)
        must_have_inputs(plan, places)
    writer = RunWriter.resume(run_dir)
    if array is None:
        for trial in missing:
            writer.set_aside(trial.id)
    job = _Job(plan, tuple(trial.id for trial in missing), site, following, array, run.meta.facts())
    return written_through(writer, gate, job.into)


def _must_be_for_nodes(plan: Plan, gate: Gate | None) -> None:
    if gate:
        gate.must_fit(plan.record())
    if host_kind(plan.host).elsewhere:
        raise BadInputError(
            f"the guests of this run are on {plan.host}, which is not a node",
            hint="leave out --slurm, or name no host",
        )


@dataclass(frozen=True)
class _Array:
    """A job of this run: the trials of its tasks by their index, and the folder of what they print."""

    job: int
    folder: Path
    trials: Mapping[int, str]

    def log(self, index: int) -> str:
        """The end of what a task printed, fit to be shown; empty where it printed nothing."""
        try:
            with Path(output(self.folder, self.job, index)).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _MOST_LOG_BYTES))
                return clean_block(stream.read(_MOST_LOG_BYTES).decode(errors="replace")).strip()
        except OSError:
            return ""


def _arrays(run_dir: Path) -> int:
    """How many arrays were submitted for a run, or were about to be."""
    folder = run_dir / FOLDER
    return sum(path.name.isdigit() for path in folder.iterdir()) if folder.is_dir() else 0


def _name(run_dir: Path, number: int) -> str:
    return f"{run_dir.name}.{number}"


def _last_array(run_dir: Path, plan: Plan, queue: Queue) -> _Array | None:
    """The last array of a run, if some of its tasks have not ended."""
    number = _arrays(run_dir)
    job = queue.latest(_name(run_dir, number)) if number else None
    if job is None or all(task.ended for task in queue.tasks(job).values()):
        return None
    folder = run_dir / FOLDER / str(number)
    trials = (folder / TRIALS).read_text(encoding="utf-8").split()
    for trial in trials:
        plan.trial(trial)
    return _Array(job, folder, dict(enumerate(trials, start=1)))


@dataclass(frozen=True)
class _Job:
    """What is to be done of a plan. `array` is what does it already; `meta` is what the others ran on."""

    plan: Plan
    trials: tuple[str, ...]
    site: Site
    following: Following
    array: _Array | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    def into(self, run: RunWriter) -> Sequence[TrialFailure]:
        """Have it done, and sum up what there is of the run, however that ends."""
        array = self.array
        try:
            if array is None:
                with deferred():  # no job is submitted and not known
                    array = self._submit(run)
            watch = _Watch(array, run.directory / layout.TRIALS, self.following)
            watch.follow()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and array:
                _cancel(array, self.following)
            with suppress(OrchestratorError):  # it has not happened because of what is there
                self._sum_up(run)
            raise
        found = self._sum_up(run)
        return list(self._failures(found, watch, run))

    def _submit(self, run: RunWriter) -> _Array:
        number = _arrays(run.directory) + 1
        # Nodes have another working directory; and links may lead elsewhere there.
        root = run.directory.resolve()
        folder = root / FOLDER / str(number)
        folder.mkdir(parents=True)
        replace_text(folder / TRIALS, "".join(f"{trial}\n" for trial in self.trials))
        replace_text(folder / SCRIPT, script(root / layout.PLAN, folder, root / layout.TRIALS, self.site))
        name = _name(run.directory, number)
        asked = words(self.plan, self.trials, name, folder=folder, cwd=Path.cwd(), site=self.site)
        job = self.following.queue.submit(asked)
        run.update_meta(slurm={"job": job, "sbatch": asked})
        self.following.progress.note(
            f"Slurm job {job}: {len(self.trials)} trials, which appear in {root / layout.TRIALS}; "
            "the nodes have to share that folder"
        )
        return _Array(job, folder, dict(enumerate(self.trials, start=1)))

    def _sum_up(self, run: RunWriter) -> dict[str, GatheredTrial]:
        found = {one.record.trial: one for one in units_in(run.directory / layout.TRIALS, self.plan)}
        if found:
            facts = facts_of([one.record for one in found.values()])
            must_be_alike(_but_for_keys(self.meta), _but_for_keys(facts))
            run.update_meta(**{name: fact for name, fact in facts.items() if name not in _OF_THE_RUN})
        summarise(run, found)
        return found

    def _failures(
        self, found: Mapping[str, GatheredTrial], watch: _Watch, run: RunWriter
    ) -> Iterator[TrialFailure]:
        lost = watch.lost(found)
        again = f"orchestrator resume {run.directory} --slurm"
        missing = {trial.id for trial in missing_trials(open_run(run.directory), self.plan)}
        for trial in (trial.id for trial in self.plan.trials):
            if trial in lost:
                brief, details = lost[trial]
                yield trial, InfrastructureError(brief, details=details, hint=again)
            elif trial in watch.array.trials.values() and (failure := found[trial].failure):
                yield trial, failure
            elif trial in missing:
                yield trial, InfrastructureError("it is missing, or was lost", hint=again)


def _but_for_keys(facts: Mapping[str, object]) -> dict[str, object]:
    """What must be alike. An image's key names its ssh keys as well, which each host has of its own."""
    image = facts.get("image")
    return {**facts, "image": {**image, "key": ""}} if isinstance(image, dict) else {**facts}


class _Watch:
    """An array as it goes on: what Slurm last said of each task, and which folders have appeared."""

    def __init__(self, array: _Array, trials: Path, following: Following) -> None:
        self.array = array
        self._trials, self._following = trials, following
        self._known: dict[int, Task] = {}
        self._there: set[str] = set()
        self._begun: set[str] = set()
        self._said = ""
        self._heard = Deadline(_SILENCE_SECONDS)

    def follow(self) -> None:
        """Wait until nothing of the array runs any more, and its folders are here."""
        follow, array = self._following, self.array
        began = time.monotonic()

        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, 1.0 + _PACE * (time.monotonic() - began)))

        end = Deadline(follow.most_seconds)
        if wait_for(self._over, end, every=follow.every_seconds, sleep=sleep) is None:
            _cancel(array, follow)
            raise InfrastructureError(
                f"Slurm job {array.job} has not ended in {follow.most_seconds:.0f} s, and was cancelled",
                hint="give it longer: --slurm-wait",
            )
        wait_for(self._shown, Deadline(_CACHE_SECONDS), every=1.0)
        unclear = {index for index in array.trials if not self._ended(index)}
        if unclear - {index for index, trial in array.trials.items() if trial in self._there}:
            history = follow.queue.history(array.job)
            self._known |= {index: task for index, task in history.items() if index in unclear}

    def lost(self, found: Mapping[str, object]) -> dict[str, tuple[str, str]]:
        """The trials of the array that left no folder: why, in Slurm's words, and what the task printed."""
        return {
            trial: (f"Slurm: {self._known.get(index, _FORGOTTEN)}", self.array.log(index))
            for index, trial in self.array.trials.items()
            if trial not in found
        }

    def _ended(self, index: int) -> bool:
        return index in self._known and self._known[index].ended

    def _over(self) -> bool | None:
        try:
            now = self._following.queue.tasks(self.array.job)
        except InfrastructureError as error:
            if self._heard.expired:
                error.hint = f"the array goes on without this; {error.hint or 'see: scontrol ping'}"
                raise
            return None
        self._heard = Deadline(_SILENCE_SECONDS)
        self._tell(now)
        # One that Slurm no longer knows is over: it forgets those that have ended (MinJobAge of slurm.conf).
        return True if all(index not in now or now[index].ended for index in self.array.trials) else None

    def _shown(self) -> bool | None:
        self._look()
        completed = {index for index, task in self._known.items() if task.state == "COMPLETED"}
        hidden = completed - {index for index, trial in self.array.trials.items() if trial in self._there}
        return None if hidden else True

    def _look(self) -> None:
        for trial in self.array.trials.values():
            if trial not in self._there and (self._trials / trial / layout.UNIT).is_file():
                self._there.add(trial)
                folder = self._trials / trial
                record = UnitRecord.model_validate_json((folder / layout.UNIT).read_bytes())
                ends = of_kind(read_events(folder), TrialEnd)
                outcome = ends[-1].outcome if ends else "unknown"
                self._following.progress.trial_done(trial, outcome, (record.ended_ns - record.began_ns) / 1e9)

    def _tell(self, now: Mapping[int, Task]) -> None:
        array, progress = self.array, self._following.progress
        for index, trial in array.trials.items():
            task = now.get(index)
            if task and not task.waits and not task.ended and trial not in self._begun:
                self._begun.add(trial)
                progress.trial(trial, len(self._begun), len(array.trials))
        self._look()
        for index, task in now.items():
            trial = array.trials.get(index, "")
            if (
                task.ended
                and not self._ended(index)
                and task.state != "COMPLETED"
                and trial not in self._there
            ):
                progress.note(f"{trial}: Slurm: {task}")
        self._known |= now
        said = f"Slurm job {array.job}: {_counts(now, len(array.trials))}"
        if said != self._said:
            self._said = said
            progress.note(said)


_FORGOTTEN: Final = Task("no longer knows the task")


def _counts(now: Mapping[int, Task], total: int) -> str:
    waiting = [task for task in now.values() if task.waits]
    running = sum(not task.waits and not task.ended for task in now.values())
    reasons = sorted({task.reason for task in waiting} - {"", "None"})
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"{len(waiting)} wait{why}, {running} run, {total - len(waiting) - running} ended"


def _cancel(array: _Array, following: Following) -> None:
    """Cancel an array, and wait for its tasks to end, so that what ended is known."""
    note: Callable[[str], None] = following.progress.note
    note(f"cancelling Slurm job {array.job}")

    def over() -> bool | None:
        return True if all(task.ended for task in following.queue.tasks(array.job).values()) else None

    try:
        following.queue.cancel(array.job)
        gone = wait_for(over, Deadline(_END_SECONDS), every=min(1.0, following.every_seconds))
    except OrchestratorError as error:
        note(f"{error.brief}: it may go on; scancel {array.job}")
        return
    if gone is None:
        note(f"Slurm job {array.job} has not ended yet: squeue --jobs={array.job}")

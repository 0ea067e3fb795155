"""Does what is left to do of a job: a run is begun or resumed, a document of a model is written once.

There is no state but the results: a run folder says which of its trials are missing, however it ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from orchestrator.analysis.text import counted
from orchestrator.claims.of_models import TLB_RUN
from orchestrator.commit import program_commit
from orchestrator.errors import BadInputError, BootTimeoutError
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import Plan, make_plan
from orchestrator.retest.jobs import GuestsJob, Job, OvercommitJob, RunJob, TlbJob
from orchestrator.retest.models import guests_document, overcommit_document
from orchestrator.retest.tlb import tlb_document
from orchestrator.run import AGAIN, RunResult, execute_plan, missing_trials, resume_run
from orchestrator.run.machinery import Machinery
from orchestrator.scenario import Scenario
from orchestrator.store import layout, open_run
from orchestrator.store.atomic import replace_text
from orchestrator.summary import load

# A guest that did not boot in time is tried again by the next call: the machine was busy, as a rule.
_AGAIN: Final = AGAIN | {BootTimeoutError.outcome}


class Progressed(StrEnum):
    """How far a job came."""

    TO_DO = "to do"
    IN_PART = "begun"
    DONE = "done"
    CANNOT = "cannot run here"


@dataclass(frozen=True)
class Workplace:
    """Where jobs are done. `folder` keeps results, `open_scenario` raises what cannot run."""

    folder: Path
    places: ProjectPaths
    machinery: Machinery
    open_scenario: Callable[[Path], Scenario]
    connect: str | None = None


@dataclass(frozen=True)
class JobState:
    """A job, and how much of it is left: trials of a run. `reason` says why it cannot run.

    `seconds` is an estimate of what is left; None where there is none.
    """

    job: Job
    progressed: Progressed
    left: int = 0
    of: int = 0
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        if self.job.seconds is None or not self.of:
            return None
        return self.job.seconds * self.left / self.of


def state_of(job: Job, where: Workplace) -> JobState:
    """What is left of a job, and whether it can be done here. Starts nothing.

    Raises BadInputError where its folder holds what was planned otherwise.
    """
    if not isinstance(job, RunJob):
        done = _document(job, where).is_file()
        return JobState(job, Progressed.DONE if done else Progressed.TO_DO, 0 if done else 1, 1)
    directory = where.folder / job.name
    try:
        plan = _plan_of(job, where)
        for problem in where.machinery.host(where.connect or plan.host).problems(plan.accel):
            raise problem
    except BadInputError as error:
        return JobState(job, Progressed.CANNOT, reason=error.brief)
    if not directory.exists():
        return JobState(job, Progressed.TO_DO, len(plan.trials), len(plan.trials))
    left = len(missing_trials(open_run(directory), _planned(directory, plan), _AGAIN))
    progressed = Progressed.IN_PART if left else Progressed.DONE
    return JobState(job, progressed, left, len(plan.trials))


def work(job: Job, where: Workplace, progress: Progress) -> RunResult | None:
    """Do what is left of a job; the result of a run, or None of a model. Raises OrchestratorError."""
    if isinstance(job, RunJob):
        return _run(job, where, progress)
    if reason := waits_for(job, where):
        raise BadInputError(f"{job.name} waits for {reason}")
    path = _document(job, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    progress.note(f"asking the model: {job.command}")
    found = _answered(job, where)
    head = {"command": job.command, "commit": program_commit()}
    replace_text(path, json.dumps({**head, **found}, indent=1) + "\n")
    return None


def waits_for(job: Job, where: Workplace) -> str:
    """The run that a job reads, with how much of it is left; empty where the job can be done."""
    if not isinstance(job, TlbJob):
        return ""
    directory = where.folder / TLB_RUN.run
    if not directory.exists():
        return f"{TLB_RUN.run}, which has not run"
    run = open_run(directory)
    # By what it would read of them: a result that was copied has summaries, and no trials.
    done = {one.trial for one in load(run) if one.outcome not in _AGAIN}
    left = len({one.id for one in run.plan.trials} - done)
    return f"{TLB_RUN.run}, of which {counted(left, 'trial')} must still run" if left else ""


def _answered(job: OvercommitJob | GuestsJob | TlbJob, where: Workplace) -> dict[str, Any]:
    if isinstance(job, GuestsJob):
        return guests_document(job.figures)
    if isinstance(job, TlbJob):
        return tlb_document(where.folder, job.accesses, job.of_trials, job.policies)
    return overcommit_document(job.scenario, job.answers)


def _run(job: RunJob, where: Workplace, progress: Progress) -> RunResult:
    plan = _plan_of(job, where)
    directory = where.folder / job.name
    options: dict[str, Any] = {"connect": where.connect, "machinery": where.machinery}
    if not directory.exists():
        where.folder.mkdir(parents=True, exist_ok=True)
        return execute_plan(plan, where.places, directory, progress, **options)
    _planned(directory, plan)
    return resume_run(directory, where.places, progress, again=_AGAIN, **options)


def _plan_of(job: RunJob, where: Workplace) -> Plan:
    if not job.scenario.is_file():
        raise BadInputError(f"there is no scenario {job.scenario}")
    scenario = where.open_scenario(job.scenario).only(job.arms)
    return make_plan(scenario, repeats=job.repeats, host=where.connect)


def _planned(directory: Path, plan: Plan) -> Plan:
    """The plan of a run that has begun. Raises BadInputError where it is not the one that is wanted now."""
    begun = Plan.from_json((directory / layout.PLAN).read_bytes())
    # Whether the files that its trials read are still the same is asked, and said in detail, when it goes on.
    if begun.model_copy(update={"scenario_path": plan.scenario_path, "files": plan.files}) != plan:
        raise BadInputError(
            f"{directory} was planned otherwise: with other repeats, or the scenario has changed since",
            hint=f"call it as before, or move {directory} away to begin anew",
        )
    return begun


def _document(job: Job, where: Workplace) -> Path:
    return where.folder / f"{job.name}.json"

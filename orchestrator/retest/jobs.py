"""What claims need to be tested again: scenarios with some of their arms, and questions to models.

Which arms, policies and synthetic guests: that follows from the evidence of all claims, so that a run which
one of them has begun is the run of the others as well. How often each is repeated is declared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

from orchestrator.claims import Claim, Committed, every_claim
from orchestrator.claims.committed import CommittedRun
from orchestrator.claims.evidence import Evidence, Source
from orchestrator.claims.figure import NoFigureError
from orchestrator.claims.of_models import GuestBytes, OvercommitFigure, TlbAfterPolicy, TlbWithoutHugePages
from orchestrator.host_kinds import is_guest
from orchestrator.stats import FEWEST

FOLDER: Final = "claims"  # below --results

# Trials of each arm, each from a boot of its own; what is not here has as many as an interval takes. All of
# them are to take two hours at most. So what takes long has fewer, and nothing can be said of differences.
REPEATS: Final[Mapping[str, int]] = {
    "allocators": 3,
    "balloon-limit": 3,
    "blame": 3,
    "huge-pages": 1,
    "oom": 3,
    "quickstart": 2,
    "reclaim": 1,
    "second-level": 1,
    "second-level-levers": 1,
}


@dataclass(frozen=True)
class _Needed:
    name: str
    """Of the committed result, and of the folder or document of the fresh one."""
    claims: tuple[str, ...]
    turn: ClassVar[int] = 0
    """What has a lower one comes first."""


@dataclass(frozen=True)
class RunJob(_Needed):
    """A scenario to run. `seconds` is an estimate, None where no committed run says how long it takes."""

    turn: ClassVar[int] = 1
    scenario: Path
    arms: tuple[str, ...]
    repeats: int
    seconds: float | None

    @property
    def command(self) -> str:
        """What would run it by itself."""
        arms = "".join(f" --arm {arm}" for arm in self.arms)
        return f"orchestrator run scenarios/{self.scenario.name}{arms} --repeats {self.repeats}"


@dataclass(frozen=True)
class OvercommitJob(_Needed):
    """Answers of `model overcommit` to ask for: (policy, action), the action empty for the only one."""

    scenario: Path
    answers: tuple[tuple[str, str], ...]
    seconds: float | None = None

    @property
    def command(self) -> str:
        """What would ask for all answers of the file."""
        return f"orchestrator model overcommit scenarios/{self.name}.yaml"


@dataclass(frozen=True)
class GuestsJob(_Needed):
    """Synthetic guests to write out: (guest, the key that is asked for)."""

    figures: tuple[tuple[str, str], ...]
    seconds: float | None = None

    @property
    def command(self) -> str:
        """What would write out the first."""
        return f"orchestrator model guest {self.figures[0][0]}"


@dataclass(frozen=True)
class TlbJob(_Needed):
    """What to ask `model tlb`: patterns of `accesses` to made-up memory, and those to the memory of the
    guests of TLB_RUN, with what each of `policies` frees. So that run comes first. `command` asks for a
    part of it."""

    turn: ClassVar[int] = 2
    accesses: tuple[str, ...]
    of_trials: tuple[str, ...]
    policies: tuple[str, ...]
    command: str
    seconds: float | None = None


Job: TypeAlias = RunJob | OvercommitJob | GuestsJob | TlbJob


def jobs_of(
    claims: Iterable[Claim],
    committed: Committed,
    scenarios: Path,
    *,
    repeats: int | None = None,
    by: Iterable[Claim] | None = None,
) -> list[Job]:
    """What tests these claims, questions to models first, then what takes least; last what was not timed.

    `scenarios` is the folder of scenarios, `repeats` replaces what is declared, `by` are all claims.
    """
    wanted = {claim.name for claim in claims}
    needed: dict[str, list[tuple[str, Evidence, Source]]] = {}
    for claim in every_claim() if by is None else by:
        for part in claim.parts:
            for source in part.evidence.sources:
                needed.setdefault(source.result, []).append((claim.name, part.evidence, source))
    jobs: list[Job] = []
    for name, uses in needed.items():
        tests = tuple(dict.fromkeys(claim for claim, _, _ in uses))
        if wanted.isdisjoint(tests):
            continue
        sources = [source for _, _, source in uses]
        path = scenarios / f"{name}.yaml"
        arms = tuple(sorted({source.arm for source in sources if source.arm}))
        if arms:
            times = repeats or REPEATS.get(name, FEWEST)
            jobs.append(RunJob(name, tests, path, arms, times, _seconds(committed, name, len(arms), times)))
            continue
        asked = [one for _, evidence, _ in uses for one in _parts(evidence)]
        jobs.append(_model_job(name, tests, path, asked, sources))
    unknown = float("inf")
    return sorted(
        jobs,
        key=lambda job: (
            job.turn,
            unknown if job.seconds is None else job.seconds,
            job.name,
        ),
    )


def _model_job(
    name: str, tests: tuple[str, ...], path: Path, asked: Sequence[Evidence], sources: Sequence[Source]
) -> Job:
    """What makes a document that is `asked` for figures."""
    if any(source.guest for source in sources):
        figures = {(one.guest, one.key) for one in asked if isinstance(one, GuestBytes)}
        return GuestsJob(name, tests, tuple(sorted(figures)))
    if name == "tlb":
        made_up = {one.access for one in asked if isinstance(one, TlbWithoutHugePages)}
        of_guests = [one for one in asked if isinstance(one, TlbAfterPolicy)]
        return TlbJob(
            name,
            tests,
            accesses=tuple(sorted(made_up)),
            of_trials=tuple(sorted({one.access for one in of_guests})),
            policies=tuple(sorted({one.policy for one in of_guests})),
            command=sources[0].command,
        )
    of_file = [one for one in asked if isinstance(one, OvercommitFigure) and name == f"overcommit/{one.file}"]
    return OvercommitJob(name, tests, path, tuple(sorted({(one.policy, one.action) for one in of_file})))


def _parts(evidence: Evidence) -> Iterator[Evidence]:
    """The evidence that others are made of."""
    inner = [one for one in vars(evidence).values() if isinstance(one, Evidence)]
    for one in inner:
        yield from _parts(one)
    if not inner:
        yield evidence


def _seconds(committed: Committed, name: str, arms: int, repeats: int) -> float | None:
    """From the times of the committed run: those of its trials and of its boots, each by their number.

    A run that found its guests saved says nothing of boots: these are taken to last as in the others here.
    """
    try:
        found = committed.run(name)
    except NoFigureError:
        return None
    trials, boots = _spent(found)
    if trials is None:
        return None
    if boots is None:
        others = sorted(seconds for seconds in _boots(committed, nested=is_guest(found.run.plan.host)))
        boots = others[len(others) // 2] if others else 0.0
    return repeats * arms * (trials + boots * _boots_per_trial(found))


def _spent(found: CommittedRun) -> tuple[float | None, float | None]:
    """Seconds of each trial, and of each boot, of a committed run."""
    meta = found.run.meta
    try:
        whole = datetime.fromisoformat(meta.finished_at) - datetime.fromisoformat(meta.started_at)
    except ValueError:
        return None, None
    saved = {summary.state for summary in found.summaries if summary.state}
    in_boots = float(meta.boots_seconds or 0.0)
    each = max(0.0, whole.total_seconds() - in_boots) / max(1, len(found.run.plan.trials))
    return each, in_boots / len(saved) if in_boots and saved else None


def _boots_per_trial(found: CommittedRun) -> float:
    """How many boots a trial takes if none is saved: arms of one guest share theirs."""
    saved = {summary.state for summary in found.summaries if summary.state}
    return min(1.0, len(saved) / max(1, len(found.summaries)))


def _boots(committed: Committed, *, nested: bool) -> Iterator[float]:
    """Seconds of a boot in each committed run that says so, of guests of this machine or of nested hosts."""
    for name in committed.run_names:
        found = committed.run(name)
        boots = _spent(found)[1]
        if boots is not None and is_guest(found.run.plan.host) == nested:
            yield boots

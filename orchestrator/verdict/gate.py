"""A gate: whether a run keeps to a baseline. Judged when the run ends, and kept in its folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.headline import METRIC
from orchestrator.stats import LEVEL, Verdict
from orchestrator.store import layout
from orchestrator.store.atomic import replace_text
from orchestrator.verdict.comparison import Comparison, compare_runs
from orchestrator.verdict.figures import RunFigures

FailOn = Literal["regression", "change", "nothing"]


@dataclass(frozen=True)
class Change:
    """A metric of an arm against the baseline: `word` is regression, improvement, change (neither way is
    better), none, or undecided. Estimates are run minus baseline; None where there is none."""

    arm: str
    metric: str
    word: str
    estimate: float
    relative: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Outcome:
    """What the gate found. `refused` says why the two cannot be compared, and is empty where they can."""

    baseline: str
    fail_on: FailOn
    level: float
    changes: tuple[Change, ...] = ()
    refused: str = ""
    forced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failing(self) -> tuple[Change, ...]:
        """The changes that the gate does not let pass."""
        words = {
            "regression": {"regression"},
            "change": {"regression", "improvement", "change"},
            "nothing": set[str](),
        }[self.fail_on]
        return tuple(one for one in self.changes if one.word in words)

    @property
    def passed(self) -> bool:
        """Whether it lets the run pass. What cannot be compared does not; what is undecided does."""
        return not self.failing and not (self.refused and self.fail_on != "nothing")


@dataclass(frozen=True)
class Gate:
    """A baseline and what to do with it; `varies` and `force` as for a comparison of runs."""

    baseline: RunFigures
    fail_on: FailOn = "nothing"
    varies: Collection[str] = ()
    level: float = LEVEL
    force: bool = False

    def must_fit(self, scenario: str, arms: Collection[str]) -> None:
        """Raise BadInputError before anything runs, if nothing of it could be compared."""
        if scenario != self.baseline.scenario and not self.force:
            raise BadInputError(
                f"the baseline is of scenario {self.baseline.scenario!r}, not of {scenario!r}",
                hint="orchestrator baseline RUN --output FILE   makes one of a run of this scenario",
            )
        theirs = [arm.name for arm in self.baseline.arms]
        if not set(arms) & set(theirs):
            raise BadInputError(
                "the baseline has none of the arms of the scenario", hint=f"it has: {', '.join(theirs)}"
            )

    def judge(self, run: RunFigures) -> Outcome:
        """Hold a run against the baseline."""
        try:
            found = compare_runs(self.baseline, run, varies=self.varies, level=self.level, force=self.force)
        except BadInputError as error:
            refused = "; ".join([error.brief, *error.details.splitlines()])
            return Outcome(self.baseline.run, self.fail_on, self.level, refused=refused)
        return Outcome(
            baseline=self.baseline.run,
            fail_on=self.fail_on,
            level=self.level,
            changes=tuple(_changes(found)),
            forced=found.forced,
            notes=found.notes,
        )


def _changes(found: Comparison) -> list[Change]:
    return [
        Change(
            arm=pair.second.name,
            metric=metric,
            word=_word(metric, one.verdict, one.estimate),
            estimate=one.estimate,
            relative=one.relative,
            low=one.interval.low if one.interval else None,
            high=one.interval.high if one.interval else None,
        )
        for pair in found.pairs
        for metric, one in pair.metrics.items()
    ]


def _word(metric: str, verdict: Verdict, estimate: float) -> str:
    if verdict is Verdict.TOO_FEW:
        return "undecided"
    if verdict is not Verdict.DIFFERENT:
        return "none"
    better = METRIC[metric].better
    if not better:
        return "change"
    return "improvement" if (estimate < 0) == (better == "lower") else "regression"


def write_outcome(run_dir: Path, outcome: Outcome) -> None:
    """Keep it in the run's folder."""
    replace_text(run_dir / layout.GATE, _Adapter.dump_json(outcome, indent=1).decode() + "\n")


def read_outcome(run_dir: Path) -> Outcome | None:
    """What the gate of a run found; None for a run without one."""
    path = run_dir / layout.GATE
    if not path.exists():
        return None
    try:
        return _Adapter.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInputError(f"{path} cannot be read", details=str(error)[:1000]) from error


_Adapter: Final[TypeAdapter[Outcome]] = TypeAdapter(Outcome)

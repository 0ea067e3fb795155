"""A gate: whether a run keeps to a baseline. Judged when the run ends, and kept in its folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.headline import CATALOGUE, METRIC
from orchestrator.records.plan import PlanRecord
from orchestrator.stats import LEVEL, Difference, Significance
from orchestrator.store import layout
from orchestrator.store.atomic import replace_text
from orchestrator.verdict.comparability import refuse_unlike
from orchestrator.verdict.comparison import LOST, PairOfArms, compare_runs
from orchestrator.verdict.figures import ArmFigures, RunFigures, planned_figures

FORMAT: Final = 1

FailOn = Literal["regression", "change", "nothing"]
Result = Literal["regression", "tolerated", "improvement", "change", "none", "undecided"]


@dataclass(frozen=True)
class Change:
    """A metric of an arm against the baseline: `before` and `after` are medians, the others differences.

    A metric of which neither way is better has the result `change`. `reason` says why one is undecided, or is
    a regression without a reading. Of LOST, `before` and `after` are numbers of boots, and `estimate` is the
    difference in their share.
    """

    arm: str
    metric: str
    result: Annotated[Result, Field(alias="word")]  # as gate.json has called it
    estimate: float | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    before: float | None = None
    after: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class GateResult:
    """What the gate found. `refused` says why the two cannot be compared, and is empty where they can.

    `source` is the baseline's file, `tolerance` the share of it by which a metric may be worse.
    """

    baseline: str
    fail_on: FailOn
    level: float
    changes: tuple[Change, ...] = ()
    refused: str = ""
    forced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    varies: tuple[str, ...] = ()
    tolerance: Annotated[float, Field(alias="tolerated")] = 0.0

    @property
    def failing(self) -> tuple[Change, ...]:
        """The changes that the gate does not let pass."""
        words = {
            "regression": {"regression"},
            "change": {"regression", "improvement", "change"},
            "nothing": set[str](),
        }[self.fail_on]
        return tuple(one for one in self.changes if one.result in words)

    @property
    def undecided_arms(self) -> tuple[str, ...]:
        """Arms of which not one metric could be decided: of these the run says neither good nor bad.

        That none was lost, and that nothing came up that must not be, one trial says; it is no comparison.
        """
        compared = (one for one in self.changes if one.metric != LOST and not METRIC[one.metric].worst)
        decided = {one.arm for one in compared if one.result != "undecided"}
        decided |= {one.arm for one in self.failing}
        return tuple(arm for arm in dict.fromkeys(one.arm for one in self.changes) if arm not in decided)

    @property
    def passed(self) -> bool:
        """Whether it lets the run pass.

        What cannot be compared does not, nor an arm of which nothing could be decided: who asks for a gate
        reads a pass as "no worse". A single metric that is undecided does, where others of its arm are not.
        """
        if self.fail_on == "nothing":
            return True
        return bool(self.changes) and not (self.failing or self.refused or self.undecided_arms)


@dataclass(frozen=True)
class Gate:
    """A baseline and what to do with it; `varies`, `level` and `force` as for a comparison of runs."""

    baseline: RunFigures
    fail_on: FailOn = "nothing"
    varies: Collection[str] = ()
    level: float = LEVEL
    force: bool = False
    tolerance: float = 0.0
    source: str = ""

    def must_fit(self, plan: PlanRecord) -> None:
        """Raise BadInputError before anything runs, where it could only be refused when all has run.

        Kernels and acceleration are not known yet: they are taken for the same.
        """
        planned = planned_figures("the scenario", plan)
        arms = tuple(
            replace(arm, kernel=before.kernel, accel=before.accel) if before else arm
            for arm in planned.arms
            for before in [self.baseline.arm(arm.name)]
        )
        refuse_unlike(self.baseline, replace(planned, arms=arms), self.varies, force=self.force)

    def judge(self, run: RunFigures) -> GateResult:
        """Hold a run against the baseline."""
        outcome = GateResult(
            baseline=self.baseline.run,
            fail_on=self.fail_on,
            level=self.level,
            source=self.source,
            varies=tuple(self.varies),
            tolerance=self.tolerance,
        )
        try:
            found = compare_runs(self.baseline, run, varies=self.varies, level=self.level, force=self.force)
        except BadInputError as error:
            return replace(outcome, refused="; ".join([error.brief, *error.details.splitlines()]))
        pairs = {pair.first.name: pair for pair in found.pairs}
        return replace(
            outcome,
            changes=tuple(
                _change(arm, metric, pairs.get(arm.name), self.tolerance)
                for arm in self.baseline.arms
                for metric in _metrics(arm, pairs.get(arm.name))
            ),
            forced=found.forced,
            notes=found.notes,
        )


def _metrics(arm: ArmFigures, pair: PairOfArms | None) -> Iterator[str]:
    """What the baseline has to compare: the same is asked of the run, be it there or not. And lost trials."""
    if pair is None or pair.lost_counts is None or pair.lost_counts.first or pair.lost_counts.second:
        yield LOST
    for metric in CATALOGUE:
        if metric.unit and not metric.given and arm.values(metric.name):
            yield metric.name


def _change(arm: ArmFigures, metric: str, pair: PairOfArms | None, tolerance: float) -> Change:
    if metric == LOST:
        return _losses(arm, pair)
    before = median(arm.values(metric))
    if pair is None:
        # Lost before it began is no better than lost.
        return Change(arm.name, metric, "regression", before=before, reason="no trial of the arm was begun")
    values = pair.second.values(metric)
    if METRIC[metric].worst and values:
        return _worst(arm, metric, values)
    after = median(values) if values else None
    one = pair.metrics.get(metric)
    if one is None:
        return Change(
            arm=arm.name,
            metric=metric,
            result="undecided" if values else "regression",
            before=before,
            after=after,
            reason=pair.missing[metric],
        )
    few = f"too few boots to say: {pair.of_boots} ({one.n} to compare, at least {pair.fewest} needed)"
    return Change(
        arm=arm.name,
        metric=metric,
        result=_result(metric, one, tolerance),
        estimate=one.estimate,
        relative=one.relative,
        low=one.interval.low if one.interval else None,
        high=one.interval.high if one.interval else None,
        before=before,
        after=after,
        reason=few if one.significance is Significance.TOO_FEW_BOOTS else "",
    )


def _worst(arm: ArmFigures, metric: str, values: Sequence[float]) -> Change:
    """Of what must not be, one more in a single trial is worse, and no chance excuses it."""
    before, after = max(arm.values(metric)), max(values)
    result: Result = "regression" if after > before else "none"
    reason = f"the most in any trial: {before:g} before, {after:g} now"
    return Change(
        arm.name, metric, result, estimate=after - before, before=before, after=after, reason=reason
    )


def _losses(arm: ArmFigures, pair: PairOfArms | None) -> Change:
    """Boots of which a trial was lost, timed out or did not settle: more of them, and it is a regression."""
    if pair is None or pair.lost_counts is None:
        return Change(arm.name, LOST, "regression", reason="no trial of the arm was begun")
    counts, found = pair.lost_counts, pair.lost
    result: Result = "none"
    if not pair.second.trials and arm.trials:
        result = "regression"  # however few they are: there is nothing good to set against it
    elif found is None:
        return Change(arm.name, LOST, "undecided", reason="no host has trials of both")
    elif found.significance is Significance.SIGNIFICANT:
        result = "regression" if found.estimate > 0 else "improvement"
    return Change(
        arm=arm.name,
        metric=LOST,
        result=result,
        estimate=found.estimate if found else None,
        before=counts.first,
        after=counts.second,
        reason=f"trials of {counts.second} of {counts.of_second} boots failed (lost, timed out or not "
        f"settled), {counts.first} of {counts.of_first} before",
    )


def _result(metric: str, one: Difference, tolerance: float) -> Result:
    if one.significance is Significance.TOO_FEW_BOOTS:
        return "undecided"
    if one.significance is not Significance.SIGNIFICANT:
        return "none"
    better = METRIC[metric].better
    if not better:
        return "change"
    if (one.estimate < 0) == (better == "lower"):
        return "improvement"
    # What grew from nothing grew by more than any share of it.
    within = one.relative is not None and abs(one.relative) < tolerance
    return "tolerated" if within else "regression"


class _File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    gate: Literal[1]
    outcome: GateResult


def write_gate_result(run_dir: Path, outcome: GateResult) -> None:
    """Keep it in the run's folder."""
    text = _File(gate=FORMAT, outcome=outcome).model_dump_json(indent=1, by_alias=True)
    replace_text(run_dir / layout.GATE, text + "\n")


def read_gate_result(run_dir: Path) -> GateResult | None:
    """What the gate of a run found; None for a run without one."""
    path = run_dir / layout.GATE
    if not path.exists():
        return None
    try:
        return _File.model_validate_json(path.read_bytes()).outcome
    except (OSError, ValidationError) as error:
        raise BadInputError(
            f"{path} cannot be read: it is not as version {FORMAT} of it has it", details=str(error)[:1000]
        ) from error

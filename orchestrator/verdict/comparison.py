"""Arms against each other: within a run, or the same arms of two runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.errors import BadInputError
from orchestrator.stats import LEVEL, Difference, Sample, differences
from orchestrator.summary import CATALOGUE, resolution_of
from orchestrator.verdict.figures import ArmFigures, RunFigures, TrialFigures

# What may be declared to be what two runs differ in; all else that differs makes them refuse.
VARIES: Final = ("kernel", "guest", "machine", "setup", "kernel_args", "host", "steps")


@dataclass(frozen=True)
class PairOfArms:
    """One arm against another. `first` is what it is compared with.

    `pairing` is `state` (trial by trial, each two from the same saved guest), `repeat` (trial by trial, with
    the same seed in the same part of the run) or `none`. `missing` says why a metric is not compared.
    """

    first: ArmFigures
    second: ArmFigures
    pairing: str
    metrics: dict[str, Difference]
    missing: dict[str, str]
    pairs: tuple[tuple[TrialFigures, TrialFigures], ...] = ()

    @property
    def tested(self) -> int:
        """How many metrics were tested, and so share the level."""
        return sum(one.p is not None for one in self.metrics.values())


@dataclass(frozen=True)
class Comparison:
    """Pairs of arms; what else is to be known of them.

    `forced` is what would have been refused. `notes` are differences that are not refused. `noise` is, for
    each metric, the difference between two arms that are the same thing; empty where no two are.
    """

    base: str
    other: str
    level: float
    seed: int
    pairs: tuple[PairOfArms, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    forced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    noise: dict[str, float] = field(default_factory=dict)


def compare_arms(
    run: RunFigures, *, base: str = "", level: float = LEVEL, seed: int = 1, force: bool = False
) -> Comparison:
    """Each arm of a run against one of them: `base`, or the first. Raises BadInputError.

    The kernel may be what arms differ in, and so may all else that a scenario says of them.
    """
    against = run.arm(base) if base else (run.arms[0] if run.arms else None)
    if against is None:
        names = ", ".join(arm.name for arm in run.arms) or "none with a trial"
        raise BadInputError(f"{run.run} has no arm {base!r}" if base else f"{run.run} has no trials yet",
                            hint=f"its arms: {names}")  # fmt: skip
    others = [arm for arm in run.arms if arm.name != against.name]
    unlike = sorted({reason for arm in others for reason in _accel_differs(against, arm)})
    _refuse(unlike, force=force)
    return Comparison(
        base=run.run,
        other=run.run,
        level=level,
        seed=seed,
        pairs=tuple(_pair(against, arm, level, seed, same_run=True) for arm in others),
        left_out=tuple(item for arm in run.arms for item in arm.left_out),
        forced=tuple(unlike),
        noise=noise_floor(run, seed),
    )


def compare_runs(
    base: RunFigures,
    other: RunFigures,
    *,
    varies: Collection[str] = (),
    level: float = LEVEL,
    seed: int = 1,
    force: bool = False,
) -> Comparison:
    """Each arm of `other` against the arm of the same name of `base`.

    `varies` are those of VARIES in which the runs are meant to differ. What else differs and would make a
    difference of its own is refused with BadInputError, or, with `force`, written into the result.
    """
    both, unlike = refuse_unlike(base, other, varies, force=force)
    alone = {arm.name for arm in (*base.arms, *other.arms)} - {arm.name for _, arm in both}
    notes = [f"arm {name} is in one of the runs only" for name in sorted(alone)]
    if base.commit != other.commit:
        notes.append(f"commit {base.commit[:12] or 'unknown'} against {other.commit[:12] or 'unknown'}")
    return Comparison(
        base=base.run,
        other=other.run,
        level=level,
        seed=seed,
        pairs=tuple(_pair(one, arm, level, seed, same_run=base.run == other.run) for one, arm in both),
        left_out=tuple(
            (f"{run.run}/{trial}", why)
            for run in (base, other)
            for arm in run.arms
            for trial, why in arm.left_out
        ),
        forced=tuple(unlike),
        notes=tuple(notes),
        noise={**noise_floor(base, seed), **noise_floor(other, seed)},
    )


def refuse_unlike(
    base: RunFigures, other: RunFigures, varies: Collection[str], *, force: bool
) -> tuple[list[tuple[ArmFigures, ArmFigures]], list[str]]:
    """The arms that two runs have in common, and what is forced. Raises BadInputError, see `compare_runs`."""
    both = [(one, arm) for arm in other.arms if (one := base.arm(arm.name))]
    if not both:
        raise BadInputError(
            f"{base.run} and {other.run} have no arm in common",
            hint=f"{base.run} has {_names(base)}; {other.run} has {_names(other)}",
        )
    unlike = list(_runs_differ(base, other))
    for one, arm in both:
        unlike += [*_accel_differs(one, arm), *_arms_differ(one, arm, varies)]
    _refuse(unlike, force=force)
    return both, unlike


def identical(run: RunFigures) -> list[tuple[ArmFigures, ArmFigures]]:
    """Pairs of arms that are the same thing under two names (A/A)."""
    return [
        (one, arm)
        for number, arm in enumerate(run.arms)
        for one in run.arms[:number]
        if one.does and (one.does, one.kernel, one.accel) == (arm.does, arm.kernel, arm.accel)
    ]


def noise_floor(run: RunFigures, seed: int = 1) -> dict[str, float]:
    """How far identical arms are apart in each metric: the far end of the interval of their difference.

    With too few trials for an interval, the largest difference between any two of their trials.
    """
    floor: dict[str, float] = {}
    for one, arm in identical(run):
        pair = _pair(one, arm, LEVEL, seed, same_run=True)
        for metric, found in pair.metrics.items():
            if found.interval:
                apart = max(abs(found.interval.low), abs(found.interval.high))
            else:
                values = [*one.values(metric), *arm.values(metric)]
                apart = max(values) - min(values)
            floor[metric] = max(apart, floor.get(metric, 0.0))
    return floor


def _pair(first: ArmFigures, second: ArmFigures, level: float, seed: int, *, same_run: bool) -> PairOfArms:
    trials, pairing = _paired(first, second, same_run=same_run)
    samples: dict[str, Sample] = {}
    missing: dict[str, str] = {}
    for metric in CATALOGUE:
        if not metric.unit or metric.given:
            continue
        if pairing == "none":
            values = first.values(metric.name), second.values(metric.name)
        else:
            whole = [pair for pair in trials if all(metric.name in trial.metrics for trial in pair)]
            values = [a.metrics[metric.name] for a, _ in whole], [b.metrics[metric.name] for _, b in whole]
        if values[0] and values[1]:
            resolution = max(resolution_of(metric, arm.does) for arm in (first, second))
            samples[metric.name] = Sample(
                tuple(values[0]), tuple(values[1]), paired=pairing != "none", resolution=resolution
            )
        else:
            missing[metric.name] = _why_missing(first, second, metric.name)
    return PairOfArms(
        first, second, pairing, differences(samples, level=level, seed=seed), missing, tuple(trials)
    )


def _paired(
    first: ArmFigures, second: ArmFigures, *, same_run: bool
) -> tuple[list[tuple[TrialFigures, TrialFigures]], str]:
    """Trials of one repeat belong together when they had one seed and, where guests were saved, one state.

    Within a run, a repeat is also a stretch of time in which each arm ran once. Of two runs, only trials
    from the same saved state are pairs.
    """
    by_repeat = {trial.repeat: trial for trial in first.trials}
    pairs = [
        (one, trial)
        for trial in second.trials
        if (one := by_repeat.get(trial.repeat)) and one.seed == trial.seed
    ]
    if pairs and all(one.state and one.state == trial.state for one, trial in pairs):
        return pairs, "state"
    if pairs and same_run:
        return pairs, "repeat"
    return [], "none"


def _why_missing(first: ArmFigures, second: ArmFigures, metric: str) -> str:
    for arm in (first, second):
        if not arm.trials:
            return f"no trial of {arm.name} counts"
        if not arm.values(metric):
            return f"no reading in {arm.name}"
    return "no pair of trials has a reading in both"


def _refuse(unlike: Sequence[str], *, force: bool) -> None:
    if unlike and not force:
        raise BadInputError(
            f"these would be compared for more than one reason: {unlike[0]}",
            details="\n".join(unlike[1:]),
            hint="--varies KEY   where that is the question, or --force   which the result will say",
        )


def _accel_differs(first: ArmFigures, second: ArmFigures) -> Iterator[str]:
    if first.accel != second.accel:
        yield f"acceleration of {second.name}: {first.accel or 'unknown'} against {second.accel or 'unknown'}"


def _runs_differ(base: RunFigures, other: RunFigures) -> Iterator[str]:
    if base.schema_version != other.schema_version:
        yield f"schema version: {base.schema_version} against {other.schema_version}"
    if base.scenario != other.scenario:
        yield f"scenario: {base.scenario} against {other.scenario}"


def _arms_differ(first: ArmFigures, second: ArmFigures, varies: Collection[str]) -> Iterator[str]:
    if first.kernel != second.kernel and "kernel" not in varies:
        yield f"kernel of {second.name}: {first.kernel or 'unknown'} against {second.kernel or 'unknown'}"
    for part in dict.fromkeys((*first.does, *second.does)):
        if first.does.get(part) != second.does.get(part) and part not in varies:
            yield f"{part} of {second.name} is not the same"


def _names(run: RunFigures) -> str:
    return ", ".join(arm.name for arm in run.arms) or "none"

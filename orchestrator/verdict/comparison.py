"""Arms against each other: within a run, or the same arms of two runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.stats import LEVEL, Difference, LostCounts, Sample, averaged, connected, differences
from orchestrator.suggestion import suggest
from orchestrator.summary import CATALOGUE, resolution_of
from orchestrator.verdict.comparability import accel_differs, alike, refuse, refuse_unlike
from orchestrator.verdict.figures import ArmFigures, RunFigures, TrialFigures

# Names the difference in how many boots had a trial that was lost, timed out or did not settle.
LOST = "trials_lost"


@dataclass(frozen=True)
class PairOfArms:
    """One arm against another. `first` is what it is compared with.

    `pairing` is `state` (trial by trial, each two from the same saved boot), `repeat` (trial by trial, with
    the same seed in the same part of the run) or `none`. `missing` says why a metric is not compared. `lost`
    is the difference in the share of boots of which a trial did not count, `lost_counts` its numbers.
    """

    first: ArmFigures
    second: ArmFigures
    pairing: str
    metrics: dict[str, Difference]
    missing: dict[str, str]
    pairs: tuple[tuple[TrialFigures, TrialFigures], ...] = ()
    lost: Difference | None = None
    lost_counts: LostCounts | None = None

    @property
    def tested(self) -> int:
        """How many metrics were tested, and so share the level; losses of trials are one more."""
        lost = (self.lost,) if self.lost else ()
        return sum(one.p is not None for one in (*self.metrics.values(), *lost))

    @property
    def units(self) -> int:
        """How many pairs of boots the pairs of trials are of."""
        return len(set(units_of(self.pairs)))

    @property
    def of_boots(self) -> str:
        """The trials that count and their boots, of both arms."""
        one, other = self.first.of_boots, self.second.of_boots
        return f"{one} of each arm" if one == other else f"{one} and {other}"


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
        if not run.arms:
            raise BadInputError(f"{run.run} has no trials yet", hint="wait for the first, or resume the run")
        raise BadInputError(
            f"{run.run} has no arm {base!r}", hint=suggest(base, [arm.name for arm in run.arms])
        )
    others = [arm for arm in run.arms if arm.name != against.name]
    unlike = sorted({reason for arm in others for reason in accel_differs(against, arm)})
    refuse(unlike, force=force)
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
    both, unlike, unknown = refuse_unlike(base, other, varies, force=force)
    unpaired = {arm.name for arm in (*base.arms, *other.arms)} - {arm.name for _, arm in both}
    notes = [f"arm {name} is in one of the runs only" for name in sorted(unpaired)]
    if base.commit != other.commit:
        notes.append(f"commit {base.commit[:12] or 'unknown'} against {other.commit[:12] or 'unknown'}")
    notes += unknown
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


def identical(run: RunFigures) -> list[tuple[ArmFigures, ArmFigures]]:
    """Pairs of arms that are the same thing under two names (A/A)."""
    return [(one, arm) for number, arm in enumerate(run.arms) for one in run.arms[:number] if alike(one, arm)]


def noise_floor(run: RunFigures, seed: int = 1) -> dict[str, float]:
    """How far identical arms are apart in each metric: the far end of the interval of their difference.

    With too few boots for an interval, the largest difference between any two of their boots; trials of one
    boot alone say nothing of that.
    """
    floor: dict[str, float] = {}
    for one, arm in identical(run):
        pair = _pair(one, arm, LEVEL, seed, same_run=True)
        for metric, found in pair.metrics.items():
            if found.interval:
                apart = max(abs(found.interval.low), abs(found.interval.high))
            else:
                values = np.array([*one.values(metric), *arm.values(metric)])
                means = averaged(values, (*one.boots(metric), *arm.boots(metric)))
                if len(means) < 2:
                    continue
                apart = float(np.ptp(means))
            floor[metric] = max(apart, floor.get(metric, 0.0))
    return floor


def _pair(first: ArmFigures, second: ArmFigures, level: float, seed: int, *, same_run: bool) -> PairOfArms:
    trials, pairing = _paired(first, second, same_run=same_run)
    samples: dict[str, Sample | LostCounts] = {}
    missing: dict[str, str] = {}
    for metric in CATALOGUE:
        if not metric.unit or metric.given:
            continue
        resolution = max(resolution_of(metric, arm.does) for arm in (first, second))
        sample = _sample(first, second, trials if pairing != "none" else None, metric.name, resolution)
        if sample:
            samples[metric.name] = sample
        else:
            missing[metric.name] = _why_missing(first, second, metric.name)
    counts = _lost(first, second)
    found = differences({**samples, LOST: counts}, level=level, seed=seed)
    lost = found.pop(LOST)
    return PairOfArms(first, second, pairing, found, missing, tuple(trials), lost, counts)


def _sample(
    first: ArmFigures,
    second: ArmFigures,
    pairs: Sequence[tuple[TrialFigures, TrialFigures]] | None,
    metric: str,
    resolution: float,
) -> Sample | None:
    """A metric in both arms; None where one has no reading, or no pair has one in both."""
    if pairs is None:
        values, boots = (
            (first.values(metric), second.values(metric)),
            (first.boots(metric), second.boots(metric)),
        )
    else:
        whole = [pair for pair in pairs if all(metric in trial.metrics for trial in pair)]
        values = [a.metrics[metric] for a, _ in whole], [b.metrics[metric] for _, b in whole]
        units = tuple(map(str, units_of(whole)))
        boots = units, units
    if not (values[0] and values[1]):
        return None
    return Sample(tuple(values[0]), tuple(values[1]), pairs is not None, resolution, boots)


def units_of(pairs: Sequence[tuple[TrialFigures, TrialFigures]]) -> tuple[int, ...]:
    """The unit of each pair of trials: those that share a boot are one."""
    return connected([(one.boot, other.boot) for one, other in pairs])


def _lost(first: ArmFigures, second: ArmFigures) -> LostCounts:
    return LostCounts(
        len(first.lost_boots), len(first.tried_boots), len(second.lost_boots), len(second.tried_boots)
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
            why = arm.gaps.get(metric, "")
            return f"not measured in {arm.name}" + (f": {why}" if why else "")
    return "no pair of trials has a reading in both"

"""The difference between two arms, metric by metric, with what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from orchestrator.stats import interval, tests
from orchestrator.stats.interval import Interval
from orchestrator.stats.tests import Estimate, Floats

LEVEL: Final = 0.05  # chance of even one false "different" among the metrics of two arms
FEWEST: Final = 5  # pairs, or trials of either arm, below which nothing is said but a warning


class Verdict(StrEnum):
    """What may be said of a difference."""

    DIFFERENT = "different"
    NONE_DETECTED = "no difference detected"
    SAME = "the same in all trials"
    TOO_FEW = "too few trials to say"


@dataclass(frozen=True)
class Sample:
    """A metric in the trials of two arms; when `paired`, each value of one belongs to that of the other.

    `resolution` is what one unit of the metric comes to, see `tests.from_pairs`.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    paired: bool
    resolution: float = 0.0

    @property
    def enough(self) -> bool:
        """Whether there are trials enough for an interval."""
        return min(len(self.first), len(self.second)) >= FEWEST


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`: the mean over pairs, or the difference of means.

    `relative` is to the mean of the first. `effect` is in standard deviations: of the pairs' differences
    (Cohen's d_z), or Hedges' g. `detectable` is the smallest difference that would have been found in four
    of five such experiments. None where there is none: too few trials, no spread, nothing to relate to.
    """

    n: int  # pairs, or trials of the arm that has fewer
    paired: bool
    estimate: float
    relative: float | None
    verdict: Verdict
    interval: Interval | None = None
    effect: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None


def differences(
    samples: Mapping[str, Sample], *, level: float = LEVEL, seed: int = 1
) -> dict[str, Difference]:
    """Compare two arms in several metrics, of which at most a share `level` of experiments calls any
    different that is not.

    Metrics that are the same in all trials are not tested, and so do not count as one more chance to err.
    Samples must not be empty, and those that are paired must be of one length.
    """
    found = {name: _described(sample) for name, sample in samples.items()}
    tested = [name for name, one in found.items() if one.verdict is Verdict.NONE_DETECTED]
    if not tested:
        return found
    estimates = {name: _estimate(samples[name]) for name in tested}
    raw = np.array([float(tests.p_values(estimates[name])) for name in tested])
    for name, p, adjusted in zip(tested, raw, tests.holm(raw), strict=True):
        sample, estimate = samples[name], estimates[name]
        error, freedom = float(estimate.error), float(estimate.freedom)
        found[name] = replace(
            found[name],
            verdict=Verdict.DIFFERENT if adjusted <= level else Verdict.NONE_DETECTED,
            interval=_interval(sample, freedom, seed),
            effect=_effect(sample),
            p=float(p),
            p_adjusted=float(adjusted),
            # Each counts as if it had to pass Holm's hardest step: so much is promised of every metric.
            detectable=tests.detectable(error, freedom, level / len(tested)),
        )
    return found


def _described(sample: Sample) -> Difference:
    """What holds without a test. NONE_DETECTED stands for one that is to be tested."""
    first, second = _arrays(sample)
    base = float(first.mean())
    estimate = float((second - first).mean()) if sample.paired else float(second.mean()) - base
    constant = np.ptp(first) == np.ptp(second) == 0 and first[0] == second[0]
    same = constant or (sample.paired and bool((first == second).all()))
    to_test = Verdict.SAME if same else Verdict.NONE_DETECTED
    return Difference(
        n=min(len(first), len(second)),
        paired=sample.paired,
        estimate=estimate,
        relative=estimate / abs(base) if base else None,
        verdict=to_test if sample.enough else Verdict.TOO_FEW,
    )


def _estimate(sample: Sample) -> Estimate:
    first, second = _arrays(sample)
    if sample.paired:
        return tests.from_pairs(second - first, sample.resolution)
    return tests.from_groups(first, second, sample.resolution)


def _interval(sample: Sample, freedom: float, seed: int) -> Interval:
    first, second = _arrays(sample)
    if sample.paired:
        return interval.of_pairs(second - first, seed)
    return interval.of_groups(first, second, freedom, seed)


def _effect(sample: Sample) -> float | None:
    first, second = _arrays(sample)
    if sample.paired:
        between = second - first
        spread, correction = float(between.std(ddof=1)), 1.0
    else:
        n, m = len(first), len(second)
        pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
        spread, correction = float(np.sqrt(pooled)), 1 - 3 / (4 * (n + m) - 9)  # Hedges 1981
    return correction * float(second.mean() - first.mean()) / spread if spread else None


def _arrays(sample: Sample) -> tuple[Floats, Floats]:
    return np.asarray(sample.first, dtype=np.float64), np.asarray(sample.second, dtype=np.float64)

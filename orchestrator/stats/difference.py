"""The difference between two arms, metric by metric, with what may be said of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from orchestrator.stats import interval, tests
from orchestrator.stats.boots import FEWEST, averaged
from orchestrator.stats.interval import Interval
from orchestrator.stats.tests import Estimate, Floats

LEVEL: Final = 0.05  # chance of even one false "significant" among the metrics of two arms


class Significance(StrEnum):
    """What may be said of a difference."""

    SIGNIFICANT = "significant"
    NOT_SIGNIFICANT = "not significant"
    IDENTICAL = "identical in all trials"
    TOO_FEW_BOOTS = "too few boots"


@dataclass(frozen=True)
class Sample:
    """A metric in the trials of two arms; when `paired`, each value of one belongs to that of the other.

    `boots` names the boot of each trial of the first and of the second, and where they are pairs the unit of
    each pair, twice (`boots.connected`); without it each trial, or pair, is one of its own. `resolution` is
    one unit of the metric, see `tests.from_pairs`.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    paired: bool
    resolution: float = 0.0
    boots: tuple[tuple[Hashable, ...], tuple[Hashable, ...]] | None = None

    @property
    def means(self) -> tuple[Floats, Floats]:
        """One value for each boot."""
        both = (np.asarray(self.first, dtype=np.float64), np.asarray(self.second, dtype=np.float64))
        if self.boots is None:
            return both
        return averaged(both[0], self.boots[0]), averaged(both[1], self.boots[1])

    @property
    def enough(self) -> bool:
        """Whether there are boots enough for an interval."""
        return min(map(len, self.means)) >= FEWEST


@dataclass(frozen=True)
class LostCounts:
    """How many boots of each arm ended in a way, of how many that were tried."""

    first: int
    of_first: int
    second: int
    of_second: int

    @property
    def same(self) -> bool:
        """Whether all boots of both did, or none."""
        return self.first + self.second in {0, self.of_first + self.of_second}


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, of boots: the mean of pairs, or the difference of means; of counts, of shares.

    `relative` is to the mean of the first. `effect` is in standard deviations: of the pairs' differences
    (Cohen's d_z), or Hedges' g. `detectable` is a difference that is found in four of five such experiments,
    on average over what their spread might be estimated to be. None where there is none: too few boots, no
    spread, nothing to relate to.
    """

    n: int  # boots, or pairs of boots, of the arm that has fewer
    paired: bool
    estimate: float
    relative: float | None
    significance: Significance
    interval: Interval | None = None
    effect: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    trials: int = 0  # behind `n`: pairs of trials, or trials of the arm that has fewer


def differences(
    samples: Mapping[str, Sample | LostCounts], *, level: float = LEVEL, seed: int = 1
) -> dict[str, Difference]:
    """Compare two arms in several metrics, of which at most a share `level` of experiments calls any
    different that is not.

    Metrics that are the same in all trials are not tested, and so do not count as one more chance to err;
    nor do counts that could not be called different. Samples must not be empty, and those that are paired
    must be of one length.
    """
    found = {name: _described(sample) for name, sample in samples.items()}
    tested = [name for name, one in found.items() if one.significance is Significance.NOT_SIGNIFICANT]
    if not tested:
        return found
    raw = np.array([_p(samples[name]) for name in tested])
    for name, p, adjusted in zip(tested, raw, tests.holm(raw), strict=True):
        found[name] = replace(
            found[name],
            significance=Significance.SIGNIFICANT if adjusted <= level else Significance.NOT_SIGNIFICANT,
            p=float(p),
            p_adjusted=float(adjusted),
        )
        sample = samples[name]
        if isinstance(sample, Sample):
            # Each counts as if it had to pass Holm's hardest step: so much is promised of every metric.
            found[name] = _with_size(found[name], sample, level / len(tested), seed)
    return found


def _p(sample: Sample | LostCounts) -> float:
    if isinstance(sample, LostCounts):
        return tests.p_of_counts(sample.first, sample.of_first, sample.second, sample.of_second)
    return float(tests.p_values(_estimate(sample)))


def _with_size(found: Difference, sample: Sample, level: float, seed: int) -> Difference:
    """With how large it is, and how large it would have had to be."""
    estimate = _estimate(sample)
    freedom = float(estimate.freedom)
    return replace(
        found,
        interval=_interval(sample, freedom, seed),
        effect=_effect(sample),
        detectable=tests.detectable(float(estimate.error), freedom, level),
    )


def _described(sample: Sample | LostCounts) -> Difference:
    """What holds without a test. NOT_SIGNIFICANT stands for one that is to be tested."""
    if isinstance(sample, LostCounts):
        return _of_counts(sample)
    first, second = sample.means
    base = float(first.mean())
    estimate = float((second - first).mean()) if sample.paired else float(second.mean()) - base
    alike = sample.paired and sample.first == sample.second
    same = alike or len({*sample.first, *sample.second}) == 1
    to_test = Significance.IDENTICAL if same else Significance.NOT_SIGNIFICANT
    return Difference(
        n=min(len(first), len(second)),
        trials=min(len(sample.first), len(sample.second)),
        paired=sample.paired,
        estimate=0.0 if same else estimate,
        relative=(0.0 if same else estimate) / abs(base) if base else None,
        significance=to_test if sample.enough else Significance.TOO_FEW_BOOTS,
    )


def _of_counts(counts: LostCounts) -> Difference:
    n = min(counts.of_first, counts.of_second)
    shares = [
        part / whole if whole else 0.0
        for part, whole in ((counts.first, counts.of_first), (counts.second, counts.of_second))
    ]
    return Difference(
        n=n,
        trials=n,
        paired=False,
        estimate=shares[1] - shares[0],
        relative=None,
        significance=Significance.IDENTICAL if counts.same or not n else Significance.NOT_SIGNIFICANT,
    )


def _estimate(sample: Sample) -> Estimate:
    first, second = sample.means
    if sample.paired:
        return tests.from_pairs(second - first, sample.resolution)
    return tests.from_groups(first, second, sample.resolution)


def _interval(sample: Sample, freedom: float, seed: int) -> Interval:
    first, second = sample.means
    if sample.paired:
        return interval.of_pairs(second - first, seed)
    return interval.of_groups(first, second, freedom, seed)


def _effect(sample: Sample) -> float | None:
    first, second = sample.means
    if sample.paired:
        between = second - first
        spread, correction = float(between.std(ddof=1)), 1.0
    else:
        n, m = len(first), len(second)
        pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
        spread, correction = float(np.sqrt(pooled)), 1 - 3 / (4 * (n + m) - 9)  # Hedges 1981
    return correction * float(second.mean() - first.mean()) / spread if spread else None

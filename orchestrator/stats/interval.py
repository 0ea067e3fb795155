"""Bootstrap intervals of a mean difference."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from orchestrator.stats.boots import FEWEST, averaged
from orchestrator.stats.tests import Floats

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 9999


@dataclass(frozen=True)
class Interval:
    """Where the true difference is, in a share `confidence` of experiments."""

    low: float
    high: float
    confidence: float = CONFIDENCE


def of_pairs(differences: Floats, seed: int, confidence: float = CONFIDENCE) -> Interval:
    """BCa interval of the mean of the differences of pairs, shape (pairs,)."""
    low, high = _bootstrap((differences,), _mean, len(differences) - 1.0, seed, confidence)
    return Interval(float(low), float(high), confidence)


def of_groups(
    first: Floats, second: Floats, freedom: float, seed: int, confidence: float = CONFIDENCE
) -> Interval:
    """BCa interval of the mean of `second` minus that of `first`, not paired (`freedom`: Welch's)."""
    low, high = _bootstrap((first, second), _mean_difference, freedom, seed, confidence)
    return Interval(float(low), float(high), confidence)


def of_few(values: Floats, boots: Sequence[Hashable], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's interval of the mean of a handful of boots: takes them for normal, where a bootstrap of so
    few would take them for all there is.

    `values` are those of trials, shape (n,), and `boots` names the boot of each; None of fewer than FEWEST.
    """
    units = averaged(values, boots)
    n = len(units)
    if n < FEWEST:
        return None
    from scipy import special  # scipy.stats takes four times as long to load

    t = special.stdtrit(n - 1, (1 + confidence) / 2)
    half = float(t * np.std(units, ddof=1) / math.sqrt(n))
    mean = float(np.mean(units))
    return Interval(mean - half, mean + half, confidence)


def of_error(difference: float, error: float, freedom: float, confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a difference with this standard error."""
    from scipy import special

    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error
    return Interval(difference - half, difference + half, confidence)


def _bootstrap(
    samples: tuple[Floats, ...], statistic: Any, freedom: float, seed: int, confidence: float
) -> tuple[Any, Any]:  # scipy has no types
    """Ends of the interval of each set of samples: the last axis is boots."""
    from scipy import stats

    if all(np.ptp(sample, axis=-1).max() == 0 for sample in samples):  # nothing to draw from but one value
        exactly = statistic(*samples, axis=-1)
        return exactly, exactly
    fewest = min(sample.shape[-1] for sample in samples)
    found = stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        n_resamples=RESAMPLES,
        confidence_level=expanded(confidence, fewest, freedom),
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return found.low, found.high


def expanded(confidence: float, n: int, freedom: float) -> float:
    """The confidence to ask the bootstrap for, so that what it gives of few trials is `confidence`.

    Resampling n values takes their spread for sqrt((n-1)/n) of what it is, and knows no uncertainty of it;
    Student's t does (Hesterberg, The American Statistician 69, 2015, 5.4: "expanded percentile").
    """
    from scipy import special

    t = -special.stdtrit(freedom, (1 - confidence) / 2)
    return float(1 - 2 * special.ndtr(-t * math.sqrt(n / (n - 1))))


def _mean(values: Floats, axis: int = -1) -> Any:  # scalar or array
    return values.mean(axis=axis)


def _mean_difference(first: Floats, second: Floats, axis: int = -1) -> Any:  # scalar or array
    return second.mean(axis=axis) - first.mean(axis=axis)

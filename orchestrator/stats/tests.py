"""Is a difference more than chance, and how small a one would have been found?

Everything works on arrays: the last axis of samples is trials, the others are whatever is tested at once,
so that a thousand simulated runs cost one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

POWER: Final = 0.8  # the share of experiments in which the detectable difference is found


@dataclass(frozen=True)
class Estimate:
    """A mean difference, its standard error, and the degrees of freedom that the error has."""

    difference: Floats
    error: Floats
    freedom: Floats


def from_pairs(differences: Floats, resolution: float = 0.0) -> Estimate:
    """Of the differences of pairs, shape (..., pairs).

    `resolution` is what one unit of the metric comes to (a page, a block): a spread below it counts as
    that. Pairs that all differ by the same one block are no proof, for want of any spread to judge by.
    """
    n = differences.shape[-1]
    deviation = np.maximum(differences.std(axis=-1, ddof=1), resolution)
    freedom = np.full_like(deviation, n - 1.0)
    return Estimate(differences.mean(axis=-1), deviation / np.sqrt(n), freedom)


def from_groups(first: Floats, second: Floats, resolution: float = 0.0) -> Estimate:
    """Of two groups that are not paired, `second` minus `first` (Welch 1947: each has its own spread)."""
    n, m = first.shape[-1], second.shape[-1]
    one = np.maximum(first.var(axis=-1, ddof=1), resolution**2) / n
    other = np.maximum(second.var(axis=-1, ddof=1), resolution**2) / m
    both = one + other
    parts = one**2 / (n - 1) + other**2 / (m - 1)
    freedom = np.divide(both**2, parts, out=np.full_like(both, n + m - 2.0), where=parts > 0)
    return Estimate(second.mean(axis=-1) - first.mean(axis=-1), np.sqrt(both), freedom)


def p_values(estimate: Estimate) -> Floats:
    """Two-sided p of Student's t. Without any spread, 1 where there is no difference and else 0."""
    from scipy.special import stdtr

    some = np.abs(estimate.difference)
    t = np.divide(some, estimate.error, out=np.where(some > 0, np.inf, 0.0), where=estimate.error > 0)
    p: Floats = 2 * stdtr(estimate.freedom, -t)
    return p


def holm(p: Floats) -> Floats:
    """p adjusted for being one of several, along the last axis (Holm 1979).

    Below a level of 5 %, the chance of even one false alarm among all of them is at most 5 %, whatever
    their dependence.
    """
    count = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(count, 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0), axis=-1)
    return adjusted


def detectable(error: float, freedom: float, level: float, power: float = POWER) -> float:
    """The true difference that a two-sided t-test at `level` finds in a share `power` of experiments.

    Same unit as `error`, which is taken as the true standard error. From the noncentral t distribution.
    """
    from scipy import optimize, stats

    critical = stats.t.isf(level / 2, freedom)

    def lacking(shift: float) -> Any:  # scipy has no types
        return stats.nct.sf(critical, freedom, shift) - power

    # At a shift of the critical value the power is about a half; a spread wide enough is then soon passed.
    found: float = optimize.brentq(lacking, 0.0, 4 * critical + 10)
    return found * error

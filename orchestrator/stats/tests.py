"""Is a difference more than chance, and how small a one would have been found?

Everything works on arrays: the last axis of samples is boots (boots.py), the others are whatever is tested at
once, so that a thousand simulated runs cost one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

POWER: Final = 0.8  # the share of experiments in which the detectable difference is found
_NODES: Final = 64  # of Gauss and Legendre's integral: right to five digits


@dataclass(frozen=True)
class Estimate:
    """A mean difference, its standard error, and the degrees of freedom that the error has."""

    difference: Floats
    error: Floats
    freedom: Floats


def from_pairs(differences: Floats, resolution: float = 0.0) -> Estimate:
    """Of the differences of pairs, shape (..., pairs).

    `resolution` is one unit of the metric (a page, a block), and a spread below it counts as that. Pairs that
    all differ by the same one block are no proof: they have no spread to judge by.
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
    """A true difference that a two-sided t-test at `level` finds in a share `power` of experiments.

    Same unit as `error`. That is an *estimate* of the standard error, with `freedom` degrees of freedom, and
    half of all estimates are too small: so the share is the mean over what might have been estimated, and
    not what it would be if this estimate were the truth (which finds a tenth less with five boots).
    """
    return _in_errors(float(freedom), level, power) * error


@lru_cache(maxsize=256)
def _in_errors(freedom: float, level: float, power: float) -> float:
    """`detectable` in estimated standard errors.

    With a true error of 1, this estimate is w and that of the next experiment v, each the root of a
    chi-square by its freedom; the next finds a difference of k w if z + k w > v t (z normal, t critical).
    """
    from scipy import optimize
    from scipy.special import chdtri, ndtr, stdtrit

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    error = np.sqrt(chdtri(freedom, (1 - nodes) / 2) / freedom)
    weight = np.outer(weights, weights) / 4
    critical = -stdtrit(freedom, level / 2)

    def lacking(k: float) -> float:
        return float((weight * ndtr(np.subtract.outer(k * error, critical * error))).sum()) - power

    # The share rises with k from a half of `level` towards one.
    found: float = optimize.brentq(lacking, 0.0, 20 * critical + 50)
    return found


def p_of_counts(first: int, of_first: int, second: int, of_second: int) -> float:
    """Two-sided p of `first` of `of_first` against `second` of `of_second` (Fisher 1935): twice the smaller
    tail of the hypergeometric distribution, at most 1."""
    total, drawn, marked = of_first + of_second, of_second, first + second
    ways = [
        math.comb(marked, k) * math.comb(total - marked, drawn - k) for k in range(min(marked, drawn) + 1)
    ]
    tails = sum(ways[: second + 1]), sum(ways[second:])
    return min(1.0, 2 * min(tails) / math.comb(total, drawn))

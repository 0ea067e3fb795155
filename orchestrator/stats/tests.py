"""Is a difference more than chance, and how small a one would have been found?

Everything works on arrays: the last axis of samples is boots (boots.py), the others are whatever is tested at
once, so that a thousand simulated runs cost one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def from_strata(cells: Sequence[tuple[Floats, Floats]], resolution: float = 0.0) -> Estimate:
    """Of two groups on several hosts, `second` minus `first`: the differences of hosts, by their `weights`.

    `cells` has both groups of each host, shapes (..., boots), none of them empty; each group has more boots
    than hosts. The error is the larger of two estimates: one takes the spread within hosts of each group to
    be its own and the same on all hosts (as Welch does, of whom it is the rule on one host), the other that
    of each host to be its own and the same in both groups. Where both are wrong at once, a spread that
    depends on either, the larger is wrong by less. The freedom is the smaller (Welch 1947, of sums of any
    number of variances).
    """
    share = weights([(first.shape[-1], second.shape[-1]) for first, second in cells])
    between = [second.mean(axis=-1) - first.mean(axis=-1) for first, second in cells]
    squares = np.stack([np.stack([_squares(one) for one in cell]) for cell in cells])  # (host, group, ...)
    counts = np.array([[one.shape[-1] for one in cell] for cell in cells], dtype=np.float64)
    free = counts - 1
    of_group = _spread(squares.sum(axis=0), free.sum(axis=0), resolution)
    by_group = _combined(of_group, (share[:, None] ** 2 / counts).sum(axis=0), free.sum(axis=0))
    # Of a host that has one boot of each, nothing is known but what all the others say.
    alone = free.sum(axis=1) == 0
    of_host = _spread(squares.sum(axis=1), np.where(alone, 1.0, free.sum(axis=1)), resolution)
    of_host[alone] = _spread(squares.sum(axis=(0, 1)), free.sum(), resolution)
    freedom = np.where(alone, free.sum(), free.sum(axis=1))
    by_host = _combined(of_host, share**2 * (1 / counts).sum(axis=1), freedom)
    error, freedom = np.maximum(by_group[0], by_host[0]), np.minimum(by_group[1], by_host[1])
    return Estimate(weighted(between, share), error, freedom)


def _squares(values: Floats) -> Floats:
    """The sum of squares about the mean."""
    squares: Floats = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return squares


def _spread(squares: Floats, freedom: Floats, resolution: float) -> Floats:
    """Variances, shape (parts, ...), of their sums of squares; freedom has the shape (parts,), or none."""
    by_part = np.reshape(freedom, (*np.shape(freedom), *[1] * (squares.ndim - np.ndim(freedom))))
    variances: Floats = np.maximum(squares / by_part, resolution**2)
    return variances


def _combined(variances: Floats, factors: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """The error of a difference whose variance is the sum of these by their factors, and its freedom."""
    both = np.tensordot(factors, variances, axes=1)
    parts = np.tensordot(factors**2 / freedom, variances**2, axes=1)
    error: Floats = np.sqrt(both)
    whole: Floats = np.divide(both**2, parts, out=np.full_like(both, freedom.sum()), where=parts > 0)
    return error, whole


def weights(counts: Sequence[tuple[int, int]]) -> Floats:
    """What share each host has in the difference of two groups, given how many of both it has: n m/(n+m), as
    much as they say of it. That is least squares with an effect for each host (Cochran, Biometrics 10, 1954).
    """
    said = np.array([n * m / (n + m) for n, m in counts])
    share: Floats = said / said.sum()
    return share


def weighted(values: Sequence[Floats], share: Floats) -> Floats:
    """The mean of what is said of hosts."""
    return np.asarray(sum(weight * value for weight, value in zip(share, values, strict=True)))


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


def p_of_counts(*strata: tuple[int, int, int, int]) -> float:
    """Two-sided p of `first` of `of_first` against `second` of `of_second`, on one host or each of several.

    Twice the smaller tail of how many of the second can be so, given how many are on each host, at most 1:
    of one host the hypergeometric distribution (Fisher 1935), of several the sum of theirs (Birch, Journal of
    the Royal Statistical Society B 26, 1964).
    """
    ways, drawn_so, of_all = [1], 0, 1
    for first, of_first, second, of_second in strata:
        total, drawn, marked = of_first + of_second, of_second, first + second
        here = [
            math.comb(marked, k) * math.comb(total - marked, drawn - k) for k in range(min(marked, drawn) + 1)
        ]
        both = [0] * (len(ways) + len(here) - 1)
        for number, before in enumerate(ways):
            for more, way in enumerate(here):
                both[number + more] += before * way
        ways, drawn_so, of_all = both, drawn_so + second, of_all * math.comb(total, drawn)
    tails = sum(ways[: drawn_so + 1]), sum(ways[drawn_so:])
    return min(1.0, 2 * min(tails) / of_all)

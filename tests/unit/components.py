"""Of a metric's spread, what is between boots and what within one: a nested design, boots by trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Components:
    """Standard deviations of a metric, in its unit: of boots' own means, and of the trials of one boot.

    From a one-way random-effects analysis of variance (Searle, Casella and McCulloch, Variance Components,
    1992, ch. 3): `between` is 0 where boots differ no more than the trials of one boot explain.
    """

    boots: int
    trials: int
    mean: float
    between: float
    within: float


def components(by_boot: Sequence[Sequence[float]] | NDArray[np.float64]) -> Components:
    """Of the trials of each boot. Raises ValueError without two boots, or where each has but one trial."""
    groups = [np.asarray(values, dtype=np.float64) for values in by_boot if len(values)]
    trials = sum(map(len, groups))
    if len(groups) < 2 or trials == len(groups):
        raise ValueError("a nested design has at least two boots, and several trials of one")
    sizes = np.array([len(group) for group in groups])
    means = np.array([group.mean() for group in groups])
    mean = float(np.concatenate(groups).mean())
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (trials - len(groups))
    between = float((sizes * (means - mean) ** 2).sum()) / (len(groups) - 1)
    typical = (trials - float((sizes**2).sum()) / trials) / (len(groups) - 1)  # trials of a boot
    return Components(
        boots=len(groups),
        trials=trials,
        mean=mean,
        between=math.sqrt(max(0.0, (between - within) / typical)),
        within=math.sqrt(within),
    )

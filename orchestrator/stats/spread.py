"""What the trials of one arm say of a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and spread of `n` values; quartiles are interpolated linearly (Hyndman and Fan's type 7)."""

    n: int
    median: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float


def spread_of(values: Sequence[float]) -> Spread | None:
    """Their spread; None of no values."""
    if not values:
        return None
    low, lower, middle, upper, high = (float(q) for q in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    return Spread(len(values), middle, low, high, lower, upper)

"""Statistics of trials: pure functions of numbers (docs/statistics.md says what is computed, and why)."""

from orchestrator.stats.difference import (
    FEWEST,
    LEVEL,
    Difference,
    Sample,
    Verdict,
    differences,
)
from orchestrator.stats.interval import CONFIDENCE, Interval, of_few
from orchestrator.stats.spread import Spread, spread_of
from orchestrator.stats.tests import POWER

__all__ = [
    "CONFIDENCE",
    "FEWEST",
    "LEVEL",
    "POWER",
    "Difference",
    "Interval",
    "Sample",
    "Spread",
    "Verdict",
    "differences",
    "of_few",
    "spread_of",
]

"""Statistics of trials: pure functions of numbers (docs/statistics.md says what is computed, and why)."""

from orchestrator.stats.boots import FEWEST, averaged, connected
from orchestrator.stats.difference import (
    LEVEL,
    Difference,
    LostCounts,
    Sample,
    Significance,
    differences,
)
from orchestrator.stats.interval import CONFIDENCE, Interval, of_few
from orchestrator.stats.tests import POWER

__all__ = [
    "CONFIDENCE",
    "FEWEST",
    "LEVEL",
    "POWER",
    "Difference",
    "Interval",
    "LostCounts",
    "Sample",
    "Significance",
    "averaged",
    "connected",
    "differences",
    "of_few",
]

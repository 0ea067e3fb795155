"""Trials without a part in any average, median or difference, and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("excluded")
@dataclass(frozen=True)
class LeftOut(Section):
    """(trial, why) of each."""

    order: ClassVar = 50
    title: ClassVar = "Excluded trials"

    rows: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        comparison = analysis.verdicts.comparison
        left_out = comparison.left_out if comparison else ()
        rows = tuple((clean(trial, 80), clean(f"it {why}", 300)) for trial, why in left_out)
        return cls(rows) if rows else None

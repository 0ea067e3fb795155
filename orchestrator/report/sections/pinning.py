"""What pins the blocks still plugged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.pinning import PinningTable, pinning_table
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("pinning")
@dataclass(frozen=True)
class Pinning(Section):
    """Classes of frames down, arms across."""

    order: ClassVar = 140
    title: ClassVar = "What pins the blocks still plugged"

    table: PinningTable

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        table = pinning_table(analysis.arms)
        return cls(table) if table else None

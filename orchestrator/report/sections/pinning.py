"""What pins the blocks still plugged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.pinning import HolderTable, holder_table
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("pinning")
@dataclass(frozen=True)
class Holders(Section):
    """Classes of frames down, arms across."""

    order: ClassVar = 140
    title: ClassVar = "What pins the blocks still plugged"

    table: HolderTable

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        table = holder_table(analysis.arms)
        return cls(table) if table else None

"""What was read at the moments that a scenario names, as probes declare it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.moments import MomentTable
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("moments")
@dataclass(frozen=True)
class Moments(Section):
    """The table of all arms."""

    order: ClassVar = 165
    title: ClassVar = "Readings at moments"

    table: MomentTable

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return cls(analysis.moments) if analysis.moments.rows else None

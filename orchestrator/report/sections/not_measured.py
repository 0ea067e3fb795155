"""What was not measured, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.not_measured import missing
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("not-measured")
@dataclass(frozen=True)
class Gaps(Section):
    """Readings and metrics, each reason once."""

    order: ClassVar = 210
    title: ClassVar = "Not measured"

    rows: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        rows = tuple(missing(analysis.view))
        return cls(rows) if rows else None

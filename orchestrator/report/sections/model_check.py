"""Policy `empty` against a live kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from orchestrator.analysis.model_check import model_check_rows
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("model-check")
@dataclass(frozen=True)
class Predictions(Section):
    """Every two arms of which one's model says what the other's kernel did."""

    order: ClassVar = 180
    title: ClassVar = "Policy empty against a live kernel"

    rows: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        rows = model_check_rows(analysis.model_checks)
        return cls(tuple(rows)) if rows else None

"""Integrity findings: wrong contents, stuck threads, kernel log errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.findings import FindingRow, findings_left
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("findings")
@dataclass(frozen=True)
class Findings(Section):
    """The first of them; `left` more are in findings.csv."""

    order: ClassVar = 60
    title: ClassVar = "Integrity findings"

    rows: tuple[FindingRow, ...]
    left: int

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return cls(analysis.findings, findings_left(analysis.view)) if analysis.findings else None

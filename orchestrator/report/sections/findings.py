"""What must not be: contents that changed, threads that stood still, complaints of kernels."""

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
    title: ClassVar = "What must not be"

    rows: tuple[FindingRow, ...]
    left: int

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return cls(analysis.findings, findings_left(analysis.view)) if analysis.findings else None

"""Where the figures are from: all that meta.json says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.arms import flat
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("provenance")
@dataclass(frozen=True)
class Provenance(Section):
    """Keys and values."""

    order: ClassVar = 220
    title: ClassVar = "Provenance"

    rows: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        rows = ((clean(key, 60), clean(value, 600)) for key, value in flat(analysis.run.meta.facts()))
        return cls(tuple(rows))

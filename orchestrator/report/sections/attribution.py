"""The attribution check: what workloads put into memory, and what blocks were blamed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.attribution import (
    AttributionRow,
    CheckedSnapshotRow,
    attribution_check_columns,
    attribution_check_rows,
    attribution_rows,
)
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import class_words
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("attribution")
@dataclass(frozen=True)
class AttributionCheck(Section):
    """Snapshots down, classes across; then each class with its precision and recall."""

    order: ClassVar = 150
    title: ClassVar = "Attribution check"

    columns: tuple[str, ...]
    rows: tuple[CheckedSnapshotRow, ...]
    attributions: tuple[AttributionRow, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        found = analysis.attribution_check
        if not found:
            return None
        columns = attribution_check_columns(found)
        return cls(
            tuple(class_words(name) for name in columns),
            tuple(attribution_check_rows(analysis.view, found, columns)),
            tuple(attribution_rows(analysis.attributions, found)),
        )

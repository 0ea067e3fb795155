"""The attribution check: what workloads put into memory, and what blocks were blamed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.attribution import (
    AttributionRow,
    ConfusionRow,
    attribution_rows,
    confusion_columns,
    confusion_rows,
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
    rows: tuple[ConfusionRow, ...]
    attributions: tuple[AttributionRow, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        found = analysis.confusion
        if not found:
            return None
        columns = confusion_columns(found)
        return cls(
            tuple(class_words(name) for name in columns),
            tuple(confusion_rows(analysis.view, found, columns)),
            tuple(attribution_rows(analysis.attributions, found)),
        )

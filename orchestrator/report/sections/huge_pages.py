"""Huge pages: what memory could supply, and what the guest counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.hugepages import COUNTERS, FREE_RANGES, HugePages, huge_pages
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("huge-pages")
@dataclass(frozen=True)
class HugePagesSection(Section):
    """Snapshots, then trials; `counters` are the heads of the second table."""

    order: ClassVar = 190
    title: ClassVar = "Huge pages"

    pages: HugePages
    counters: tuple[str, ...] = (*COUNTERS, FREE_RANGES)

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        found = huge_pages(analysis.view)
        return cls(found) if found else None

"""Second-level tables over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.over_time import OverTime, Reading
from orchestrator.report.section import SECTIONS


@SECTIONS.register("second-level-time")
@dataclass(frozen=True)
class SecondLevelTime(OverTime):
    """A panel for each arm; none without KVM, which has none that could be seen."""

    order: ClassVar = 90
    title: ClassVar = "Second-level tables over time"
    lead: ClassVar = (
        "Solid is what KVM has, of all levels (SecPageTables of the host without IOMMU tables); dashed is "
        "what is needed to map what QEMU has of the guest, predicted from its page map. Between them are "
        "tables that map nothing."
    )
    readings: ClassVar = (
        Reading("host_meminfo", "second_level_bytes", "measured"),
        Reading("host_pagemap", "second_level_needed_bytes", "needed (predicted)", dashed=True),
    )

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return super().of(analysis) if analysis.moments else None

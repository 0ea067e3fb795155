"""Guest page tables over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.report.over_time import OverTime, Reading
from orchestrator.report.section import SECTIONS


@SECTIONS.register("page-tables")
@dataclass(frozen=True)
class PageTables(OverTime):
    """A panel for each arm."""

    order: ClassVar = 80
    title: ClassVar = "Guest page tables"
    lead: ClassVar = "PageTables of the guest's /proc/meminfo."
    readings: ClassVar = (Reading("guest_meminfo", "PageTables", "page tables"),)

"""The balloon over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.report.over_time import OverTime, Reading
from orchestrator.report.section import SECTIONS


@SECTIONS.register("balloon")
@dataclass(frozen=True)
class Balloon(OverTime):
    """A panel for each arm."""

    order: ClassVar = 110
    title: ClassVar = "Balloon"
    lead: ClassVar = "Memory that the balloon leaves to the guest."
    readings: ClassVar = (Reading("balloon", "actual", "left to the guest"),)

"""OOM kills: who was killed, and with how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.oom_kills import KillRow
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("oom-kills")
@dataclass(frozen=True)
class OomKills(Section):
    """The first of them; oom_kills.csv has all."""

    order: ClassVar = 55
    title: ClassVar = "OOM kills"

    rows: tuple[KillRow, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return cls(analysis.oom_kills) if analysis.oom_kills else None

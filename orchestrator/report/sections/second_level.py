"""Second-level tables at the moments that a scenario names, and what policies would free of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.second_level import MomentRow, TreeTable, tree_table
from orchestrator.analysis.text import clean
from orchestrator.report.section import SECTIONS, Section


@SECTIONS.register("second-level")
@dataclass(frozen=True)
class SecondLevel(Section):
    """`name` is what the host's CPU calls them: EPT or NPT."""

    order: ClassVar = 160
    title: ClassVar = "Second-level tables"

    name: str
    moments: tuple[MomentRow, ...]
    tree: TreeTable

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        if not analysis.second_level:
            return None
        name = clean(analysis.run.meta.second_level, 20)
        return cls(name, analysis.second_level, tree_table(analysis.view))

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.name})" if self.name else self.title

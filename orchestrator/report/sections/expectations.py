"""What the scenario expects, and whether it came so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.errors import BadInputError
from orchestrator.report.section import SECTIONS, Section


@dataclass(frozen=True)
class Expected:
    """An expectation as a line of the table."""

    words: str
    found: str
    met: bool


@SECTIONS.register("expectations")
@dataclass(frozen=True)
class Expectations(Section):
    """In the order of the scenario; the answer says so where they cannot be read."""

    order: ClassVar = 30
    title: ClassVar = "Expectations"

    rows: tuple[Expected, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        try:
            judged = analysis.verdicts.expectation_results
        except BadInputError:
            return None
        rows = (Expected(clean(one.expectation, 300), clean(one.found, 300), one.met) for one in judged)
        return cls(tuple(rows)) if judged else None

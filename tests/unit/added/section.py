"""How many trials there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.section import SECTIONS, Figure, Section


@SECTIONS.register("added")
@dataclass(frozen=True)
class Trials(Section):
    """Trials of each arm."""

    order: ClassVar = 215
    title: ClassVar = "Trials by arm"

    trials: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        return cls(tuple((arm.name, len(arm.trials)) for arm in analysis.arms))

    def charts(self) -> Iterable[Figure]:
        rows = [{"arm": arm, "trials": trials} for arm, trials in self.trials]
        encoding = {"x": {"field": "trials", "type": "quantitative"}, "y": {"field": "arm"}}
        spec = {"data": {"values": rows}, "mark": "bar", "encoding": encoding}
        yield Figure("chart-added", spec, "Bars of trials by arm.")

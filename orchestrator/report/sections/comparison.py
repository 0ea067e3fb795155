"""The table of arms: metrics down, arms across; those in which arms differ first, the rest folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from orchestrator.analysis.arm_table import Group, split
from orchestrator.analysis.arms import ArmView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.section import SECTIONS, Section, colour


@dataclass(frozen=True)
class ArmHead:
    """The head of an arm's column."""

    name: str
    colour: int
    note: str


@SECTIONS.register("comparison")
@dataclass(frozen=True)
class Metrics(Section):
    """Of one arm, everything is shown and nothing is folded."""

    order: ClassVar = 20
    title: ClassVar = "Metrics"

    arms: tuple[ArmHead, ...]
    shown: tuple[Group, ...]
    folded: tuple[Group, ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        if not analysis.groups:
            return None
        heads = tuple(_head(arm) for arm in analysis.arms)
        if len(heads) == 1:
            return cls(heads, analysis.groups, ())
        return cls(heads, *split(analysis.groups))

    @property
    def folded_rows(self) -> int:
        """How many rows are folded."""
        return sum(len(group.rows) for group in self.folded)


def _head(arm: ArmView) -> ArmHead:
    settings = [f"{key} {value}" for key, value in arm.differs.items() if value]
    kernels = sorted({trial.summary.kernel_release for trial in arm.trials} - {""})
    trials = [f"medians of {arm.of_boots}"] if len(arm.trials) > 1 else []
    note = " · ".join([*settings, *(f"Linux {kernel}" for kernel in kernels), *trials])
    return ArmHead(clean(arm.name, 60), colour(arm), clean(note, 160))

"""A part of the page. Each is one file in `sections/` and one fragment in `templates/sections/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from orchestrator.analysis.arms import ArmView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.host_kinds import is_guest
from orchestrator.registry import Registry
from orchestrator.report.charts import ARM_COLOURS, Spec


@dataclass(frozen=True)
class Figure:
    """A chart and its place in the page. `alt` says in words what it shows; `colour` is an arm's."""

    id: str
    spec: Spec
    alt: str
    title: str = ""
    note: str = ""
    colour: int = 0


class Section(ABC):
    """A frozen dataclass; its fields are what its fragment shows of `it`.

    It is registered under the name that is its anchor, and its fragment is
    `templates/sections/<name>.html.j2`, or that of `fragment`. Sections stand in the page by `order`.
    """

    order: ClassVar[int]
    title: ClassVar[str]
    fragment: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        """What a run has to show in it; None where that is nothing."""

    @property
    def heading(self) -> str:
        """What stands above it and in the table of contents."""
        return self.title

    def charts(self) -> Iterable[Figure]:
        """The charts that the fragment has places for."""
        return ()


SECTIONS: Final[Registry[type[Section]]] = Registry("section", "orchestrator.report.sections")


def colour(arm: ArmView) -> int:
    """The number of an arm's colour in report.css."""
    return arm.index % ARM_COLOURS


def seconds_note(analysis: RunAnalysis) -> str:
    """The note to an axis of seconds where they are not those of a guest by itself."""
    notes = []
    if is_guest(analysis.run.plan.host):
        notes.append("The guest's host is a guest itself: the seconds give the order, not the duration.")
    elif analysis.run.at_once:
        notes.append("Trials ran in parallel: the seconds give the order, not the duration.")
    if analysis.conditions.emulated:
        notes.append("Under TCG, no time or rate is comparable with real machines.")
    return " ".join(notes)

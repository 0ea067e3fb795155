"""The shape of an action: its parameters, what can be wrong with them, and how it is carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orchestrator.host.machine import Frozen, Machine
from orchestrator.older_names import OlderNames
from orchestrator.records.step import Effect, StepResult
from orchestrator.registry import Registry

if TYPE_CHECKING:
    from orchestrator.actions.context import StepContext


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one parameter of a step, and what would be right."""

    field: str
    wrong: str
    right: str


class Action(Frozen, OlderNames, ABC):
    """One step. Its fields are the parameters that a scenario writes; its docstring is the help."""

    older_names: ClassVar = {"within": "timeout"}

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:  # noqa: ARG002  # for those that override it
        """Faults that can be seen before anything runs."""
        yield from ()

    effect: ClassVar[Effect] = Effect()
    """What it does to memory; a snapshot after one that takes some shows what stayed."""

    of_whole_host: ClassVar[bool] = False
    """Whether it acts on all guests of the host, so that no other trial may be on it meanwhile."""

    def unplugs_by(self, machine: Machine) -> int | None:  # noqa: ARG002  # for those that override it
        """Bytes that it takes by hot-unplug as a whole or not at all; None if it takes none so."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """The step in a few words, as shown while it runs: `unplug to 0 B`."""

    @abstractmethod
    def run(self, trial: StepContext) -> StepResult:
        """Carry it out; returns how it went. Raises GuestError when the guest failed."""


ACTIONS: Registry[type[Action]] = Registry("action", "orchestrator.actions")

"""What a part of a claim is judged by: a typed reference to a committed result, or why there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from orchestrator.claims.committed import Committed
from orchestrator.claims.figure import Figure, NoFigureError, Sample
from orchestrator.observation import Origin


@dataclass(frozen=True)
class Source:
    """A committed result, and the arm of it that is read, or in guests.json the synthetic guest.

    `asked` is what to ask `model tlb` for a figure of tlb.json.
    """

    result: str
    arm: str = ""
    guest: str = ""
    asked: str = ""

    @property
    def command(self) -> str:
        """What makes it again."""
        if self.arm:
            return f"orchestrator run scenarios/{self.result}.yaml"
        if self.result.startswith("overcommit/"):
            return f"orchestrator model overcommit scenarios/{self.result}.yaml"
        if self.result == "tlb":
            return f"orchestrator model tlb {self.asked}"
        return f"orchestrator model guest {self.guest}"


class Evidence(ABC):
    """What a part of a claim is judged by."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Measured, predicted or modelled."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The results that it reads."""
        return ()

    @abstractmethod
    def figure(self, committed: Committed) -> Figure:
        """Raises NoFigureError where there is none, and BadInputError where the reference is wrong."""


class Sampled(Evidence):
    """Evidence with a value for each boot, or for each end of a model's range."""

    @abstractmethod
    def sample(self, committed: Committed) -> Sample:
        """Raises as `figure` does."""

    def figure(self, committed: Committed) -> Figure:
        return self.sample(committed).figure()


@dataclass(frozen=True)
class Untestable(Evidence):
    """Why no result of this testbed can be evidence."""

    reason: str

    @property
    def origin(self) -> Origin:
        return Origin.MEASURED

    def figure(self, committed: Committed) -> Figure:  # noqa: ARG002  # as the others
        raise NoFigureError(self.reason, cannot=True)

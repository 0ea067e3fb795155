"""What a trial offers to the actions that it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from orchestrator.deadline import Deadline
from orchestrator.host.domain import Domain
from orchestrator.host.machine import Machine
from orchestrator.records.events import Event


class StepContext(ABC):
    """A running trial, as an action sees it."""

    @property
    @abstractmethod
    def machine(self) -> Machine:
        """What the guest is made of."""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """The running virtual machine."""

    @property
    @abstractmethod
    def host_domain(self) -> Domain | None:
        """Its host, where that one is a guest of ours, too."""

    @property
    @abstractmethod
    def runtime(self) -> Path:
        """The run's folder in which it notes what `clean` has to put right after a kill -9."""

    @property
    @abstractmethod
    def step(self) -> int:
        """The number of the step that runs, from 1."""

    @abstractmethod
    def now_ns(self) -> int:
        """Monotonic nanoseconds since the trial began."""

    @abstractmethod
    def check(self) -> None:
        """Raise the GuestError that tells it, if the guest is dead."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Wait, and notice when the guest dies meanwhile."""

    @abstractmethod
    def record(self, event: Event) -> None:
        """Write down that something happened."""

    @abstractmethod
    def start_workload(
        self, name: str, settings: Mapping[str, object], deadline: Deadline
    ) -> dict[str, float]:
        """Bring a workload to its steady state; returns what it measured. Raises WorkloadKilledError."""

    @abstractmethod
    def stop_workload(self, name: str, deadline: Deadline) -> dict[str, float]:
        """End a workload; returns what it measured. What it found wrong is recorded. Raises
        WorkloadKilledError where the OOM killer had ended it before."""

    @abstractmethod
    def execute(self, argv: list[str], deadline: Deadline) -> str:
        """Run a command in the guest to its end; returns what it printed, which is bounded."""

    @abstractmethod
    def snapshot(self, label: str, *, of_host: bool = False) -> None:
        """Take a snapshot, of the guest or of its host, and keep it with the trial."""

    @abstractmethod
    def mark(self, label: str) -> None:
        """Give the moment a name, once every probe has read what is there now."""

"""What a trial offers to the actions that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from orchestrator.actions.curve import Point
from orchestrator.deadline import Deadline
from orchestrator.host.domain import Domain
from orchestrator.host.machine import Machine


class Outcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    PARTIAL = "partial"  # something came of it, and less than was asked
    REFUSED = "refused"  # it never moved
    TIMEOUT = "timeout"  # still moving when its time was over


class TrialContext(Protocol):
    """A running trial, as an action sees it."""

    @property
    def machine(self) -> Machine:
        """What the guest is made of."""

    @property
    def domain(self) -> Domain:
        """The running virtual machine."""

    @property
    def host_domain(self) -> Domain | None:
        """Its host, where that one is a guest of ours, too."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds since the trial began."""

    def check(self) -> None:
        """Raise the GuestError that tells it, if the guest is dead."""

    def sleep(self, seconds: float) -> None:
        """Wait, and notice when the guest dies meanwhile."""

    def done(
        self,
        outcome: Outcome,
        *,
        requested_ns: int | None = None,
        acknowledged_ns: int | None = None,
        settled_ns: int | None = None,
        values: Mapping[str, float] | None = None,
        curve: Sequence[Point] = (),
        said: str = "",
    ) -> None:
        """Record how the running step went.

        `curve` is what moved, against time; `said` what the guest gave as its reason for stopping short.
        """

    def event(self, name: str, **fields: object) -> None:
        """Record that something happened just now."""

    def start_workload(
        self, name: str, settings: Mapping[str, object], deadline: Deadline
    ) -> dict[str, float]:
        """Bring a workload to its steady state; returns what it measured."""

    def stop_workload(self, name: str, deadline: Deadline) -> dict[str, float]:
        """End a workload; returns what it measured. What it found wrong is recorded."""

    def execute(self, argv: list[str], deadline: Deadline) -> str:
        """Run a command in the guest to its end; returns what it printed, which is bounded."""

    def snapshot(self, label: str, *, of_host: bool = False) -> None:
        """Take a snapshot, of the guest or of its host, and keep it with the trial."""

    def mark(self, label: str) -> None:
        """Give the moment a name, once every probe has read what is there now."""

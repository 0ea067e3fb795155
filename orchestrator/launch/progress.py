"""What a run tells whoever watches it. The command line shows it; tests collect it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what happens, in order, from the thread that runs the plan."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def trial(self, trial_id: str, number: int, total: int) -> None:
        """A trial begins; `number` counts from 1."""

    def step(self, text: str, number: int, total: int) -> None:
        """A step of it begins; steps before the first of the scenario have number 0."""

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        """The step ended."""

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None:
        """The trial ended."""

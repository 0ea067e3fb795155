"""Shows a run as it goes: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from orchestrator.cli.output import err
from orchestrator.units import format_duration

_STYLES = {"done": "green", "completed": "green", "partial": "yellow", "refused": "yellow"}


class PlainProgress:
    """One line for each thing that happens."""

    def __init__(self, typical_trial_seconds: float | None = None) -> None:
        self._began = time.monotonic()
        self._trial = ""
        self._typical = typical_trial_seconds
        self._finished: list[float] = []
        self._trial_number, self._trial_total = 0, 0
        self._trial_began = self._began

    def note(self, text: str) -> None:
        self._say(escape(text))

    def trial(self, trial_id: str, number: int, total: int) -> None:
        self._trial, self._trial_number, self._trial_total = trial_id, number, total
        self._trial_began = time.monotonic()
        left = self._seconds_left()
        rest = f", about {format_duration(left)} left" if left is not None else ""
        self._say(f"[bold]trial {escape(trial_id)}[/] ({number} of {total}{rest})")

    def step(self, text: str, number: int, total: int) -> None:
        place = f"step {number} of {total}" if number else "before the steps"
        self._say(f"  {escape(self._trial)}: {place}: {escape(text)}")

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        style = _STYLES.get(outcome, "red")
        self._say(
            f"  {escape(self._trial)}: {escape(text)}: [{style}]{outcome}[/] after {format_duration(seconds)}"
        )

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None:
        self._finished.append(seconds)
        style = _STYLES.get(outcome, "red")
        self._say(f"trial {escape(trial_id)}: [{style}]{outcome}[/] after {format_duration(seconds)}")

    def _seconds_left(self) -> float | None:
        """From the trials of this run that are done, else from an earlier run; unknown without either."""
        typical = sum(self._finished) / len(self._finished) if self._finished else self._typical
        if typical is None:
            return None
        running = self._trial_number > len(self._finished)
        spent = time.monotonic() - self._trial_began if running else 0.0
        return max(0.0, typical * (self._trial_total - len(self._finished)) - spent)

    def _say(self, markup: str) -> None:
        elapsed = time.monotonic() - self._began
        with suppress(OSError):  # a log that takes nothing more is no reason to end a run
            err.print(f"[dim]{elapsed:6.0f} s[/] {markup}")


class LiveProgress(PlainProgress):
    """The finished steps as lines, and below them one that moves: what runs now, and how long is left."""

    def __init__(self, typical_trial_seconds: float | None = None) -> None:
        super().__init__(typical_trial_seconds)
        self._now = "starting"
        self._step_began = time.monotonic()
        self._spinner = Spinner("dots")

    def step(self, text: str, number: int, total: int) -> None:
        place = f"step {number}/{total}" if number else "preparing"
        self._now, self._step_began = f"{place} {text}", time.monotonic()

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None:
        self._now = "saving"
        super().trial_done(trial_id, outcome, seconds)

    def note(self, text: str) -> None:
        self._now, self._step_began = text, time.monotonic()
        super().note(text)

    def __rich__(self) -> RenderableType:
        parts = [self._now, format_duration(time.monotonic() - self._step_began)]
        if self._trial_number:
            parts.append(f"trial {self._trial_number}/{self._trial_total}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {format_duration(left)} left")
        line = Text(" · ".join(parts), style="cyan", overflow="ellipsis", no_wrap=True)
        return Group(self._spinner.render(time.monotonic()), line)


@contextmanager
def watch(typical_trial_seconds: float | None = None) -> Iterator[PlainProgress]:
    """The progress that fits where standard error goes.

    `typical_trial_seconds`: what a trial took in an earlier run, for a first guess at how much is left.
    """
    if not err.is_terminal:
        yield PlainProgress(typical_trial_seconds)
        return
    progress = LiveProgress(typical_trial_seconds)
    with Live(progress, console=err, refresh_per_second=4, transient=True):
        yield progress

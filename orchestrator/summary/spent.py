"""Where the time of a run went: in guests and their steps, or as overhead of the orchestrator."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass

import psutil

from orchestrator.jsontext import parse_json
from orchestrator.records.events import Phase, StepBegin, StepEnd, of_kind
from orchestrator.store import Run, TrialFolder, layout
from orchestrator.store.atomic import replace_text


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of a run from the start of its process until its report was written.

    `starting` is boots, set-up, saves and restores; `steps` the steps of trials; `image` looking for the
    image, or building it.
    """

    wall: float
    image: float
    starting: float
    steps: float

    @property
    def overhead(self) -> float:
        """What is left: the orchestrator's own."""
        return max(0.0, self.wall - self.image - self.starting - self.steps)


def note_time(run: Run) -> None:
    """Write how long this process has taken for the run, as the last thing that it does for it."""
    seconds = time.time() - psutil.Process().create_time()
    replace_text(run.directory / layout.TIME, json.dumps({"wall_seconds": round(seconds, 3)}) + "\n")


def time_spent(run: Run) -> TimeSpent | None:
    """None where the run did not come to its end in one process, or an older version made it, or where trials
    ran side by side: their seconds add up to more than those of the run, which would leave 0 for the rest."""
    image = run.meta.image_seconds
    if image is None or run.meta.resumed_at or run.at_once:
        return None
    try:
        wall = float(parse_json((run.directory / layout.TIME).read_text())["wall_seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if not 0 < wall < math.inf:
        return None
    boots = run.meta.boots_seconds or 0.0
    trials = (*run.warm_ups, *run.trials)
    return TimeSpent(wall, image, boots + sum(map(_phases, trials)), sum(map(_steps, trials)))


def _phases(trial: TrialFolder) -> float:
    return sum(phase.seconds or 0.0 for phase in of_kind(trial.events, Phase))


def _steps(trial: TrialFolder) -> float:
    total, began = 0, None
    for event in trial.events:
        if isinstance(event, StepBegin):
            began = event.t_ns
        elif isinstance(event, StepEnd) and began is not None:
            total, began = total + event.t_ns - began, None
    return total / 1e9

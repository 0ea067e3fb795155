"""A run in short, for `list --json` and the head of `show --json`. Imports nothing that computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from orchestrator.analysis.text import clean, percent
from orchestrator.store import UNFINISHED, Run
from orchestrator.summary import TrialSummary


class Document(BaseModel):
    """What all of them have in common: the text under a field is its line in docs/json.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunRow(Document):
    """A run in short, as `list --json` has it."""

    run: str
    """The run's id: the name of its folder."""
    scenario: str
    """The scenario's name."""
    started_at: str
    """When the run began, in UTC."""
    status: str
    """`completed`, `failed`, `interrupted`, `killed`, `running` or `unknown`."""
    exit_code: int | None
    """Of `orchestrator run`; null until it ended."""
    trials_done: int
    """Trials that came to their end."""
    trials_planned: int
    """Trials of the plan, without warm-ups."""
    headline: str
    """How much of what was requested unplug achieved, by arm; empty where nothing was unplugged."""

    @classmethod
    def of(cls, run: Run, summaries: Iterable[TrialSummary]) -> Self:
        """Of a run and its summaries; nothing is computed."""
        return cls(**run_row(run, summaries))


def run_row(run: Run, summaries: Iterable[TrialSummary]) -> dict[str, Any]:
    """The fields of a RunRow. Of a folder of which only the tables are kept, trials are those in them."""
    kept = list(summaries)
    done = run.done if run.trials else sum(one.outcome != UNFINISHED for one in kept)
    return {
        "run": run.id,
        "scenario": run.scenario,
        "started_at": run.meta.started_at,
        "status": run.status.value,
        "exit_code": run.meta.exit_code,
        "trials_done": done,
        "trials_planned": len(run.planned),
        "headline": _headline(kept),
    }


def _headline(summaries: Iterable[TrialSummary]) -> str:
    given: dict[str, tuple[float, float]] = {}
    for one in summaries:
        asked, got = one.number("unplug_requested_bytes"), one.number("unplug_achieved_bytes")
        if asked and got is not None:
            before = given.get(one.arm, (0.0, 0.0))
            given[one.arm] = before[0] + got, before[1] + asked
    parts = [f"{clean(arm, 80)} {percent(got, asked)}" for arm, (got, asked) in given.items()]
    return f"unplugged: {', '.join(parts)}" if parts else ""

"""A run in short, for `list --json` and the head of `show --json`. Imports nothing that computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from orchestrator.analysis.text import clean, percent
from orchestrator.store import UNFINISHED, Run
from orchestrator.summary import TrialSummary
from orchestrator.summary.typical import typical


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
    """How much of what was requested unplug achieved, by arm: of the medians over its trials. Empty where
    nothing was unplugged."""

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
    by_arm: dict[str, list[TrialSummary]] = {}
    for one in summaries:
        by_arm.setdefault(one.arm, []).append(one)
    parts = []
    for arm, trials in by_arm.items():
        asked, got = typical(trials, "unplug_requested_bytes"), typical(trials, "unplug_achieved_bytes")
        if asked and got is not None:
            parts.append(f"{clean(arm, 80)} {percent(got, asked)}")
    several = any(len(trials) > 1 for trials in by_arm.values())
    return f"unplugged{' (median)' if several else ''}: {', '.join(parts)}" if parts else ""

"""What a run's plan had each trial do: the steps of all arms in one list, with the arms of those of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from pydantic import JsonValue, ValidationError

from orchestrator.actions import ACTIONS
from orchestrator.analysis.text import clean
from orchestrator.errors import BadInputError
from orchestrator.records.plan import PlanRecord

_LONGEST: Final = 2000  # characters of a step; a command is told in full


@dataclass(frozen=True)
class PlannedStep:
    """A step in words, and the arms that have it; none where all have."""

    text: str
    arms: tuple[str, ...]


def planned_steps(plan: PlanRecord) -> tuple[PlannedStep, ...]:
    """In the order of the plan; empty where it does not say."""
    by_arm: dict[str, list[str]] = {}
    for trial in plan.trials:
        if trial.steps and trial.arm not in by_arm:  # all trials of an arm do the same
            by_arm[trial.arm] = [step_in_words(step) for step in trial.steps]
    return tuple(
        PlannedStep(text, () if len(arms) == len(by_arm) else tuple(clean(arm, 60) for arm in arms))
        for text, arms in _merged(by_arm)
    )


def step_in_words(step: JsonValue) -> str:
    """As `orchestrator plan` tells it; of an unknown action, its name and parameters."""
    name, params = "", {}
    if isinstance(step, Mapping):
        name = str(step.get("action", ""))
        given = step.get("params")
        params = given if isinstance(given, dict) else {}
    try:
        return clean(ACTIONS[name].model_validate(params).describe(), _LONGEST)
    except (BadInputError, ValidationError):
        words = ", ".join(f"{key}={value}" for key, value in params.items())
        return clean(f"{name or 'unknown'} ({words})" if words else name or "unknown", _LONGEST)


def _merged(by_arm: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """One sequence that has each arm's in it, in order; steps that arms have in common are in it once."""
    merged: list[tuple[str, list[str]]] = []
    for arm, steps in by_arm.items():
        longer: list[tuple[str, list[str]]] = []
        matcher = SequenceMatcher(None, [text for text, _ in merged], steps, autojunk=False)
        for tag, begin, end, first, last in matcher.get_opcodes():
            if tag == "equal":
                longer += [(text, [*arms, arm]) for text, arms in merged[begin:end]]
            else:
                longer += merged[begin:end]
                longer += [(text, [arm]) for text in steps[first:last]]
        merged = longer
    return merged

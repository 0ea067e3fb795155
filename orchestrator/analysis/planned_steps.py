"""What a run's plan had each trial do: the steps of all arms in one list, with the arms of those of some."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from pydantic import JsonValue, ValidationError

from orchestrator.analysis.text import clean
from orchestrator.errors import BadInputError
from orchestrator.plan import PlannedStep
from orchestrator.records.plan import PlanRecord

_LONGEST: Final = 2000  # characters of a step; a command is printed in full


@dataclass(frozen=True)
class StepOfArms:
    """A step in words, and the arms that have it; none where all have."""

    text: str
    arms: tuple[str, ...]


def planned_steps(plan: PlanRecord) -> tuple[StepOfArms, ...]:
    """In the order of the plan; empty where it does not say."""
    by_arm: dict[str, list[str]] = {}
    for trial in plan.trials:
        if trial.steps and trial.arm not in by_arm:  # all trials of an arm do the same
            by_arm[trial.arm] = [step_in_words(step) for step in trial.steps]
    return tuple(
        StepOfArms(text, () if len(arms) == len(by_arm) else tuple(clean(arm, 60) for arm in arms))
        for text, arms in _merged(by_arm)
    )


def step_in_words(step: JsonValue) -> str:
    """As `orchestrator plan` tells it; of a step that this version cannot read, what plan.json has."""
    try:
        words = PlannedStep.model_validate(step).load().describe()
    except (BadInputError, ValidationError):
        words = json.dumps(step)
    return clean(words, _LONGEST)


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

"""`expect:`: what is to come out of a run, metric by metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from orchestrator.headline import METRIC, METRICS
from orchestrator.host.machine import Frozen
from orchestrator.suggestion import suggest
from orchestrator.units import parse_duration, parse_size

# How a trial ends (errors.py, run/trial.py) and how an unplug does (records/step.py).
WORDS: Final = {
    "outcome": (
        "completed",
        "failed",
        "panic",
        "lost",
        "timeout",
        "boot-timeout",
        "command-failed",
        "setup-failed",
    ),
    "unplug_outcome": ("done", "partial", "refused", "timeout"),
}

_Words: TypeAlias = Annotated[list[str], Field(min_length=1)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Expectation(Frozen):
    """A bound of an arm's median, or, with `versus`, of its difference from another arm; or how each of its
    trials is to end.

    Of what must not be at all (`Metric.worst`) it is a bound of the largest value in any trial.
    """

    metric: str
    """A column of summary.csv that is a number; with `one_of`, `outcome` or `unplug_outcome`."""
    arm: str = ""
    """The arm that it is about; without it, it is about each arm."""
    versus: str | None = None
    """The arm that is subtracted: the bounds are then of the difference, and may be negative."""
    one_of: Annotated[_Words, BeforeValidator(_as_list, json_schema_input_type=_Words | str)] | None = None
    """Words, one of which each trial of the arm is to end with, those that are lost as well."""
    at_most: float | None = Field(default=None, json_schema_extra={"anyOf": [{"type": ["string", "number"]}]})
    """Upper bound: a size, a duration or a number, as the metric has it."""
    at_least: float | None = Field(
        default=None, validate_default=True, json_schema_extra={"anyOf": [{"type": ["string", "number"]}]}
    )
    """Lower bound."""

    def of_each(self, arms: Iterable[str]) -> tuple[Expectation, ...]:
        """Itself; where it names no arm, one for each of `arms` but that which it is held against."""
        if self.arm:
            return (self,)
        return tuple(self.model_copy(update={"arm": arm}) for arm in arms if arm != self.versus)

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in WORDS and (name not in METRIC or not METRIC[name].unit):
            numbers = [*(metric for metric in METRICS if METRIC[metric].unit), *WORDS]
            raise ValueError(f"{name[:80]!r} is no metric that is a number; {suggest(name, numbers)}")
        return name

    @field_validator("versus")
    @classmethod
    def _another(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name == info.data.get("arm"):
            raise ValueError(f"{name!r} is the arm itself; name another one")
        return name

    @field_validator("one_of")
    @classmethod
    def _known_words(cls, words: list[str] | None, info: ValidationInfo) -> list[str] | None:
        metric = info.data.get("metric")
        if metric is None or words is None:
            return words
        if metric not in WORDS:
            raise ValueError(f"{metric} is a number; bound it by at_most or at_least")
        if info.data.get("versus"):
            raise ValueError("words have no difference; leave `versus` out")
        unknown = next((word for word in words if word not in WORDS[metric]), None)
        if unknown is not None:
            raise ValueError(f"{unknown[:80]!r} is no {metric}; {suggest(unknown, WORDS[metric])}")
        return words

    @field_validator("at_most", "at_least", mode="before")
    @classmethod
    def _in_its_unit(cls, value: Any, info: ValidationInfo) -> Any:
        metric = METRIC.get(info.data.get("metric", ""))
        if value is not None and info.data.get("metric") in WORDS:
            raise ValueError("a word has no bounds; write one_of: [...]")
        if value is None or metric is None or (info.context or {}).get("resolved"):
            return value
        parse = {"bytes": parse_size, "seconds": parse_duration}.get(metric.unit)
        if parse is None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{value!r} is not a number; write one without a unit")
            return value
        negative = isinstance(value, str) and value.startswith("-")
        number = parse(value[1:] if negative else value)
        return -number if negative else number

    @field_validator("at_least")
    @classmethod
    def _bounded(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None and info.data.get("at_most", 0) is None and info.data.get("one_of", 0) is None:
            right = "one_of" if info.data.get("metric") in WORDS else "at_most or at_least"
            raise ValueError(f"there is no bound; add {right}")
        return value

"""`expect:`: what is to come out of a run, metric by metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.headline import METRIC, METRICS
from orchestrator.host.machine import Frozen
from orchestrator.units import parse_duration, parse_size
from orchestrator.yamlwords import suggest


class Expectation(Frozen):
    """A bound of an arm's median, or, with `versus`, of its difference from another arm.

    Of what must not be at all (`Metric.worst`) it is a bound of the largest value in any trial.
    """

    metric: str
    """A column of summary.csv that is a number."""
    arm: str = ""
    """The arm that it is about; without it, it is about each arm."""
    versus: str | None = None
    """The arm that is subtracted: the bounds are then of the difference, and may be negative."""
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
        if name not in METRIC or not METRIC[name].unit:
            numbers = [metric for metric in METRICS if METRIC[metric].unit]
            raise ValueError(f"{name[:80]!r} is no metric that is a number; {suggest(name, numbers)}")
        return name

    @field_validator("versus")
    @classmethod
    def _another(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name == info.data.get("arm"):
            raise ValueError(f"{name!r} is the arm itself; name another one")
        return name

    @field_validator("at_most", "at_least", mode="before")
    @classmethod
    def _in_its_unit(cls, value: Any, info: ValidationInfo) -> Any:
        metric = METRIC.get(info.data.get("metric", ""))
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
        if value is None and info.data.get("at_most", 0) is None:
            raise ValueError("there is no bound; add at_most or at_least")
        return value

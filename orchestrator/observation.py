"""One reading, or one reading that could not be had and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

NO_SECOND_LEVEL: Final = "no second level under TCG"
"""Why nothing is read of KVM's tables where the guest has no KVM."""


class Origin(StrEnum):
    """Where a value comes from. Values of different origin never share a column."""

    MEASURED = "measured"
    PREDICTED = "predicted"  # computed from measured state
    MODELLED = "modelled"  # what a policy would have done


@dataclass(frozen=True, slots=True)
class Observation:
    """A value at an instant of a trial.

    `t_ns` counts CLOCK_MONOTONIC nanoseconds of the orchestrator's machine since the trial began;
    a reading from a guest is stamped when it arrives. `value` is None exactly when the reading is
    missing, and then `gap` says why.
    """

    t_ns: int
    trial: str
    source: str  # the probe, or probe/object: "guest_process/redis-server"
    name: str
    value: float | None
    unit: str  # "bytes", "seconds", "count", "1/s", "instructions"
    origin: Origin = Origin.MEASURED
    gap: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.gap):
            raise ValueError(f"{self.source}/{self.name}: a reading has a value or a gap with its reason")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe returns: an observation before the trial's clock and name are put on it.

    Its unit and origin are those of the series that the probe declares under this name.
    """

    name: str
    value: float | None
    source: str = field(default="", kw_only=True)
    """Appended to the probe's name where one probe reads several objects."""
    gap: str = field(default="", kw_only=True)

"""The unit in which the values of a chart or a table are handy numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.units import GIB, KIB, MIB, TIB

_LONG_SECONDS: Final = 1200


@dataclass(frozen=True)
class Axis:
    """How large values are written: bytes over `factor`, called `unit`."""

    unit: str
    factor: float


def bytes_axis(largest: float) -> Axis:
    """The unit in which `largest` is a handy number."""
    units = (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
    return next((Axis(name, factor) for name, factor in units if largest >= factor), Axis("B", 1))


def seconds_axis(largest: float) -> Axis:
    """Seconds, or what is less than that of which `largest` is a handy number."""
    return next(
        (Axis(name, factor) for name, factor in (("s", 1.0), ("ms", 1e-3)) if largest >= factor),
        Axis("µs", 1e-6),
    )


def time_axis(longest: float) -> Axis:
    """Seconds, or minutes when there are many."""
    return Axis("min", 60) if longest > _LONG_SECONDS else Axis("s", 1)


def axis_of(largest: float, unit: str) -> Axis:
    """The axis of values in `unit`, as a series has it."""
    known = {"bytes": bytes_axis, "seconds": seconds_axis}
    return known[unit](largest) if unit in known else Axis("" if unit == "count" else unit, 1)

"""The shape of a record, and bounds of what may stand in one: guests say some of it, and may say anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.printable import clean

Number: TypeAlias = int | float

MOST_POINTS: Final = 10_000
"""Points of a curve that are read; actions write at most 1,000."""
_LARGEST: Final = 2.0**63
_LINE_CHARACTERS: Final = 32_768


class Record(BaseModel):
    """Immutable. Fields that this version does not know are left out when it is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _text(most: int, value: object) -> str:
    return "" if value is None else str(value)[:most]


def number(value: object) -> Number | None:
    """`value`, if it is a number that a float can hold: JSON has NaN, Infinity and longer integers, too."""
    value = value.item() if hasattr(value, "item") else value  # a numpy scalar
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < _LARGEST else None


def _values(value: object) -> dict[str, Number | None]:
    return {clean(key): number(one) for key, one in value.items()} if isinstance(value, Mapping) else {}


def _settings(value: object) -> object:
    return {clean(key): one for key, one in value.items()} if isinstance(value, Mapping) else value


def _points(value: object) -> list[tuple[Number, Number]]:
    """Pairs of numbers, those that make no sense left out, in the order of time."""
    pairs = value[:MOST_POINTS] if isinstance(value, list | tuple) else ()
    points = []
    for pair in pairs:
        if isinstance(pair, list | tuple) and len(pair) == 2:
            seconds, moved = map(number, pair)
            if seconds is not None and moved is not None and seconds >= 0:
                points.append((seconds, moved))
    return sorted(points, key=lambda point: point[0])


def bounded(value: object) -> object:
    """JSON with texts no longer than a line."""
    if isinstance(value, str):
        return value[:_LINE_CHARACTERS]
    if isinstance(value, Mapping):
        return {str(key)[:_LINE_CHARACTERS]: bounded(one) for key, one in value.items()}
    return [bounded(one) for one in value] if isinstance(value, list | tuple) else value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(_LINE_CHARACTERS, one) for one in value) if isinstance(value, list | tuple) else ()


Whole: TypeAlias = Annotated[int, Field(gt=-(1 << 63), lt=1 << 63)]
"""A whole number that 64 bits hold: JSON has longer ones, which no float does."""
Text: TypeAlias = Annotated[str, BeforeValidator(partial(_text, _LINE_CHARACTERS))]
"""A line. Empty where there is none, cut where it is longer than any that is written."""
Details: TypeAlias = Annotated[str, BeforeValidator(partial(_text, 4000))]
OutputText: TypeAlias = Annotated[str, BeforeValidator(partial(_text, 65_536))]
ConsoleTail: TypeAlias = Annotated[str, BeforeValidator(partial(_text, 8000))]
Name: TypeAlias = Annotated[
    str, BeforeValidator(lambda value: clean(value, 256) if isinstance(value, str) else value)
]
"""What other records and tables name something by: printable, with room for any that a scenario may have."""
Settings: TypeAlias = Annotated[dict[str, Text], BeforeValidator(_settings)]
"""Lines by the name of a column."""
UtsName: TypeAlias = Annotated[str, BeforeValidator(lambda value: clean(_text(64, value), 64))]
"""As long as __NEW_UTS_LEN allows (include/uapi/linux/utsname.h), and printable: it gets into tables, and a
guest can call its kernel what it likes."""
Texts: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_texts)]
OptionalNumber: TypeAlias = Annotated[Number | None, BeforeValidator(number)]
"""A number; None for what is none."""
Values: TypeAlias = Annotated[Mapping[str, Number | None], BeforeValidator(_values)]
"""Numbers by name; None for what is none."""
Curve: TypeAlias = Annotated[tuple[tuple[Number, Number], ...], BeforeValidator(_points)]
"""Seconds since a request, and bytes that had moved by then."""

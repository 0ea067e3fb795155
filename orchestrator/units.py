"""Sizes and durations: text with a unit outside, bytes and seconds inside."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

# x86-64 geometry (Intel SDM vol. 3A, 4.5): 512 eight-byte entries in a 4 KiB table at every level.
PAGE_BYTES = 4096
ENTRIES_PER_TABLE = 512
PMD_BYTES = PAGE_BYTES * ENTRIES_PER_TABLE  # what one last-level table maps: 2 MiB

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)")
_SIZE_LOOKALIKE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)
_SIZE_FACTORS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)")
_DURATION_FACTORS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_size(text: object) -> int:
    """Bytes of a size such as `1536MiB`. Raises ValueError that says what would be right."""
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        if isinstance(text, str) and (near := _SIZE_LOOKALIKE.fullmatch(text.strip())):
            unit = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}[near[2].lower()]
            raise ValueError(
                f"{text!r} is not a size; write {near[1]}{unit} (units are B, KiB, MiB, GiB, TiB)"
            )
        raise ValueError(
            f"{text!r} is not a size; write a number with B, KiB, MiB, GiB or TiB, as in 1536MiB"
        )
    size = Fraction(match[1]) * _SIZE_FACTORS[match[2]]  # exact, where a float is not above 8 PiB
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def parse_duration(text: object) -> float:
    """Seconds of a duration such as `30s`. Raises ValueError that says what would be right."""
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, min or h, as in 30s")
    return float(match[1]) * _DURATION_FACTORS[match[2]]


def format_size(size_bytes: float) -> str:
    """A size for people, to four digits: `1.5 GiB`. `write_size` is exact."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.4g} {unit}"
    return f"{size_bytes:.0f} B"


def write_size(size_bytes: int) -> str:
    """A size as a scenario writes it, exact: `1536MiB`. `parse_size` reads it back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_FACTORS[unit] == 0:
            return f"{size_bytes // _SIZE_FACTORS[unit]}{unit}"
    return f"{size_bytes}B"


def format_duration(seconds: float) -> str:
    """A duration for people: `2 min 05 s`, `0.8 s`."""
    if seconds < 9.95:  # from there on it would round to 10.0
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _from_text_or_number(parse: object) -> BeforeValidator:
    # A plan read back from JSON carries numbers (bytes, seconds); a person writes text with a unit.
    def convert(value: object, info: object) -> object:
        context = getattr(info, "context", None) or {}
        if context.get("resolved") and isinstance(value, int | float) and not isinstance(value, bool):
            return value
        return parse(value)  # type: ignore[operator]  # parse_size or parse_duration, below

    return BeforeValidator(convert)


Size = Annotated[
    int,
    _from_text_or_number(parse_size),
    Field(ge=0),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["1536MiB"]}),
]
Duration = Annotated[
    float,
    _from_text_or_number(parse_duration),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["30s"]}),
]

"""Sizes and durations: exact both ways, and a bad one is told what it should have been."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.units import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    write_size,
)


@given(st.integers(0, 1 << 80))
def test_a_written_size_is_read_back_to_the_byte(size: int) -> None:
    assert parse_size(write_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("1536MiB", 1536 << 20), (" 1.5 GiB ", 3 << 29), ("0.5KiB", 512), ("2TiB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("512M", "write 512MiB"),
        ("1.5g", "write 1.5GiB"),
        ("3kb", "write 3KiB"),
        ("512mib", "write 512MiB"),
        ("0.3B", "not a whole number of bytes"),
        ("512", "write a number with"),
        (512, "write a number with"),
        ("-1MiB", "write a number with"),
        (None, "write a number with"),
        (True, "write a number with"),
    ],
)
def test_what_is_no_size_is_told_what_would_be(text: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30.0), ("1.5 min", 90.0), ("2h", 7200.0), ("0s", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", 30, "30 sec", "1d", "-1s", "", None, "1m"])
def test_what_is_no_duration_is_told_what_would_be(text: object) -> None:
    with pytest.raises(ValueError, match="as in 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3 << 29, "1.5 GiB"),
        (446693376, "426 MiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3725, "62 min 05 s"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


class Both(BaseModel):
    size: Size
    time: Duration


def test_people_write_units_and_plans_carry_numbers() -> None:
    written = Both.model_validate({"size": "4KiB", "time": "2s"})
    assert written == Both.model_validate({"size": 4096, "time": 2.0}, context={"resolved": True})
    with pytest.raises(ValidationError, match="write a number with"):
        Both.model_validate({"size": 4096, "time": "2s"})
    for bad in ({"size": True, "time": 2}, {"size": -1, "time": 2}, {"size": 1, "time": float("nan")}):
        with pytest.raises(ValidationError):
            Both.model_validate(bad, context={"resolved": True})
    with pytest.raises(ValidationError):
        Both.model_validate({"size": "1B", "time": "9" * 400 + "h"})


@pytest.mark.parametrize(
    ("kind", "good", "bad"), [(Size, "1536MiB", "1536MB"), (Duration, "250ms", "250 msec")]
)
def test_the_schema_for_editors_takes_what_the_parser_takes(kind: Any, good: str, bad: str) -> None:
    pattern = TypeAdapter(kind).json_schema()["pattern"]
    assert re.search(pattern, good)
    assert not re.search(pattern, bad)

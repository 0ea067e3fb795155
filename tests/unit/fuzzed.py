"""What was fuzzed, for docs/fuzzing.md: results/reference/fuzz.json, which tests/fuzz/fuzz_all.py writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "results" / "reference" / "fuzz.json"


@cache
def campaign() -> dict[str, Any]:
    """The committed campaign: its conditions, and what came of each target."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def total(key: str) -> float:
    """A count of all targets together."""
    return float(sum(one[key] for one in campaign()["targets"]))


FILTERS: Mapping[str, Callable[..., str]] = {
    "whole": lambda value: f"{value:,.0f}",
    "as_mib": lambda value: f"{value / (1 << 20):,.0f}",
}
GLOBALS: Mapping[str, object] = {"fuzzing": campaign, "fuzzed": total}

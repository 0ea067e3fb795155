"""How fast the replay was beside libcachesim, for docs/model.md: from results/reference/replay.json.

Two runs of `tox -e bench`, in seconds of CPU time by round; the table is of the second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from statistics import median, pstdev
from typing import Any

from other_simulator import OTHERS
from timed_pairs import FLOORS, FLOORS_ELSE, TOLERANCE, Timed, table_lines

FILE = Path(__file__).resolve().parents[2] / "results" / "reference" / "replay.json"


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


@cache
def runs() -> tuple[tuple[Timed, ...], ...]:
    """Of each run, all pairs in the same order."""
    return tuple(
        tuple(
            Timed(
                policy,
                policy if policy in OTHERS else "lru",
                case,
                _file()["conditions"]["touches"],
                *(tuple(seconds[which]) for which in ("ours", "default", "tuned")),
            )
            for case, policies in run.items()
            for policy, seconds in policies.items()
        )
        for run in _file()["runs"]
    )


def times(which: str, policies: Iterable[str] | None = None) -> list[float]:
    """Of both runs, ratios to `which` (default or tuned), ascending; None: of policies without own floors."""
    pairs = (one for run in runs() for one in run)
    if policies is None:
        chosen = [one for one in pairs if one.policy not in FLOORS]
    else:
        chosen = [one for one in pairs if one.policy in policies]
    return sorted(getattr(one, f"times_{which}") for one in chosen)


def _round_deviations() -> list[float]:
    """Of each run, the standard deviation of a round's ratio, as a share of that of the medians."""
    return [
        pstdev(
            math.log(theirs / ours / one.times_tuned)
            for one in run
            for ours, theirs in zip(one.ours, one.tuned, strict=True)
        )
        for run in runs()
    ]


def _apart() -> list[float]:
    """By how much each ratio of medians of one run is from that of the other, as logarithms."""
    first, second = runs()
    return [
        math.log(getattr(after, name) / getattr(before, name))
        for before, after in zip(first, second, strict=True)
        for name in ("times_default", "times_tuned")
    ]


def _rate(policy: str, case: str, which: str) -> float:
    """Requests a second of the last run, of ours or of libcachesim's."""
    (one,) = (one for one in runs()[-1] if (one.policy, one.case) == (policy, case))
    return float(one.requests / median(getattr(one, which)))


def speed() -> dict[str, Any]:
    """What the template needs."""
    apart = _apart()
    own = math.sqrt(sum(value**2 for value in apart) / len(apart) / 2)
    return {
        **_file(),
        "table": "\n".join(table_lines(runs()[-1])),
        "times": times,
        "floors": {**FLOORS, "else": FLOORS_ELSE},
        "tolerance": TOLERANCE,
        "deviations": _round_deviations(),
        "pairs": len(apart),
        "apart": math.exp(max(map(abs, apart))) - 1,
        "deviation_of_medians": own,
        "rate": _rate,
    }


def _digits(value: float, digits: int = 2) -> str:
    """So many digits that count, without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "digits": _digits,
    "millions": lambda value, digits=3: _digits(value / 1e6, digits),
    "percent_of": lambda value: f"{value * 100:.0f} %",
}
GLOBALS: Mapping[str, object] = {"speed": speed}

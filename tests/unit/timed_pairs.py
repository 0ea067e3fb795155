"""Replays timed beside libcachesim: ratios of medians, what they must be, and the table of them.

Seconds are of CPU time: on a machine that is shared, time on the wall says more of the neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# How many times as fast as libcachesim with its default hash table, and with one that suits the trace, a
# replay has to be: at most three quarters of the least that was measured (docs/model.md, Speed). Policies
# that libcachesim lacks are held against its LRU, which does less.
FLOORS = {
    "lru": (10.0, 3.0),
    "fifo": (10.0, 3.0),
    "clock": (10.0, 3.0),
    "belady": (4.0, 2.0),
    "generations": (2.0, 0.25),
}
FLOORS_ELSE = (10.0, 2.0)
# A ratio that is below its floor by less says nothing: two standard deviations of a ratio of medians of six
# rounds, from two runs of all pairs with other processes on the same cores.
TOLERANCE = 0.2


@dataclass(frozen=True)
class Timed:
    """One policy on one trace; element i of `ours`, `default` and `tuned` (seconds) is of round i."""

    policy: str
    rival: str  # libcachesim's policy
    case: str
    requests: int
    ours: tuple[float, ...]
    default: tuple[float, ...]
    tuned: tuple[float, ...]

    @property
    def times_default(self) -> float:
        """How many times as fast ours is as theirs by default, by medians."""
        return median(self.default) / median(self.ours)

    @property
    def times_tuned(self) -> float:
        """How many times as fast ours is as theirs with the hash table that suits it best, by medians."""
        return median(self.tuned) / median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio of one round to theirs with the tuned hash table."""
        ratios = [theirs / ours for ours, theirs in zip(self.ours, self.tuned, strict=True)]
        return min(ratios), max(ratios)

    def too_slow(self) -> list[str]:
        """In words, each floor that it is below significantly."""
        floors = FLOORS.get(self.policy, FLOORS_ELSE)
        said = f"{self.policy}, {self.case}"
        found = zip(("default", "tuned"), (self.times_default, self.times_tuned), floors, strict=True)
        return [
            f"{said}: {times:.2f} times libcachesim's {self.rival}, {which}, not {floor:g}"
            for which, times, floor in found
            if times < floor * (1 - TOLERANCE)
        ]


def table_lines(found: Sequence[Timed]) -> list[str]:
    """One line for each policy, over all of its traces: million requests a second of CPU time, and ratios."""
    head = ("policy", "ours", "default", "tuned", "times", "least", "where")
    rows: list[tuple[str, ...]] = [head, ("", "M/s", "M/s", "M/s", "tuned", "(rounds)", "")]
    for policy in sorted({one.policy for one in found}):
        mine = [one for one in found if one.policy == policy]
        requests = sum(one.requests for one in mine)
        ours, default, tuned = (
            sum(median(getattr(one, name)) for one in mine) for name in ("ours", "default", "tuned")
        )
        least = min(mine, key=lambda one: one.times_tuned)
        low, high = least.spread
        rows.append(
            (
                policy if mine[0].rival == policy else f"{policy} ({mine[0].rival})",
                *(f"{requests / seconds / 1e6:.3g}" for seconds in (ours, default, tuned)),
                f"{tuned / ours:.3g}",
                f"{least.times_tuned:.2g} ({low:.2g} to {high:.2g})",
                least.case,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            word.ljust(width) if column in {0, len(head) - 1} else word.rjust(width)
            for column, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

"""The resize curve of a step: how much memory had moved, against the time since that was asked for."""

from __future__ import annotations

from orchestrator.records.step import Point

MOST_POINTS = 1000


class Curve:
    """Collects points in the order of their times; the first is (0, 0)."""

    def __init__(self, requested_ns: int) -> None:
        self._requested_ns = requested_ns
        self._points: list[Point] = [(0.0, 0)]

    def add(self, t_ns: int, moved_bytes: int) -> None:
        """At `t_ns`, on the clock of `requested_ns`, so much had moved in all."""
        self._points.append((round((t_ns - self._requested_ns) / 1e9, 3), moved_bytes))

    @property
    def points(self) -> list[Point]:
        """At most `MOST_POINTS`: the first, the last, and an even choice of those between."""
        last, most = len(self._points) - 1, MOST_POINTS - 1
        if last <= most:
            return list(self._points)
        return [self._points[round(place * last / most)] for place in range(MOST_POINTS)]

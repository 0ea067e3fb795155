"""What all Vega-Lite charts have in common: one small panel per arm, all panels of a kind on the same axes.

Colours are CSS variables of report.css, so that one chart serves light, dark and paper: the SVG
renderer hands them to the browser as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.analysis.arms import ArmView, Point
from orchestrator.analysis.scale import Axis

Spec = dict[str, Any]

MAX_POINTS: Final = 240  # per line; more than one per two pixels shows nothing more
ARM_COLOURS: Final = 8
PANEL_HEIGHT: Final = 168


@dataclass(frozen=True)
class Panel:
    """One figure: an arm's name, its chart, and what it says in words."""

    arm: ArmView
    spec: Spec
    alt: str


def downsample(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points that keep the first, the last, and the extremes of every stretch."""
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for index in range(stretches):
        stretch = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        if stretch:
            extremes = {min(stretch, key=_value), max(stretch, key=_value)}
            kept += sorted(extremes)
    return [*kept, points[-1]]


def base_config() -> Spec:
    """What all charts have in common."""
    quiet = {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
    }
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif",
        "padding": {"left": 2, "right": 8, "top": 4, "bottom": 2},
        "view": {"stroke": None},
        "axis": {
            **quiet,
            "titleFontWeight": "normal",
            "domainColor": "var(--line)",
            "gridColor": "var(--grid)",
            "ticks": False,
            "labelPadding": 6,
            "labelSeparation": 8,
        },
        "text": {"color": "var(--ink)"},
    }


def arm_colour(index: int) -> str:
    """The colour of an arm; a further arm takes the first one's again and is distinguished by its panel."""
    return f"var(--arm{index % ARM_COLOURS})"


def _value(point: Point) -> float:
    return point[1]


def tick(axis: Axis) -> str:
    """Vega expression that writes a tick with its unit, and nought without."""
    return f"datum.value ? datum.label + ' {axis.unit}' : '0'" if axis.unit else "datum.label"


def finished(chart: Any, height: int) -> Spec:
    """The chart as a spec that fills its place in the page."""
    import altair as alt

    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    sized = chart.properties(width="container", height=height, autosize=fit, config=base_config())
    spec: Spec = sized.to_dict()
    del spec["$schema"]  # embed.js says that it is Vega-Lite; no address belongs into the page
    return spec

"""Vega-Lite charts, one small panel per arm, all panels of a kind on the same axes.

Colours are CSS variables of report.css, so that one chart serves light, dark and paper: the SVG
renderer hands them to the browser as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.analysis.arms import ArmView, Point, StepView, TrialView, series
from orchestrator.analysis.policies import Bar
from orchestrator.analysis.scale import Axis, bytes_axis, time_axis
from orchestrator.analysis.text import clean, quantity

Spec = dict[str, Any]

MAX_POINTS: Final = 240  # per line; more than one per two pixels shows nothing more
ARM_COLOURS: Final = 8
_LABEL_ROOM: Final = 1.6  # axis beyond the longest bar, in bars, for what is written at its end
_BAR_HEIGHT: Final = 18
PANEL_HEIGHT: Final = 168
_MARKER_GAP: Final = 0.045  # step numbers nearer than this share of the axis stand together


@dataclass(frozen=True)
class Reading:
    """What one line of a chart shows: an observation's source and name."""

    source: str
    name: str
    label: str
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One figure: an arm's name, its chart, and what it says in words."""

    arm: ArmView
    spec: Spec
    alt: str


@dataclass(frozen=True)
class _Line:
    label: str
    dashed: bool
    trial: str
    points: Sequence[Point]


def time_panels(arms: Sequence[ArmView], readings: Sequence[Reading], what: str) -> list[Panel]:
    """Bytes over time: a panel for each arm that has such readings, none where no arm has."""
    lines = {arm.index: list(_lines(arm, readings)) for arm in arms}
    points = [point for arm in arms for line in lines[arm.index] for point in line.points]
    if not points:
        return []
    ends = [end for arm in arms for end in _ends(arm.shown.steps)]
    longest = max(1.0, *(time for time, _ in points), *ends)
    largest = max(value for _, value in points)
    axes = time_axis(longest), bytes_axis(largest)
    return [
        Panel(
            arm,
            _time_spec(arm, lines[arm.index], axes, (longest, largest)),
            _time_alt(arm, lines[arm.index], what),
        )
        for arm in arms
        if lines[arm.index]
    ]


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
        },
        "text": {"color": "var(--ink)"},
    }


def arm_colour(index: int) -> str:
    """The colour of an arm; a further arm takes the first one's again and is told apart by its panel."""
    return f"var(--arm{index % ARM_COLOURS})"


def _value(point: Point) -> float:
    return point[1]


def _lines(arm: ArmView, readings: Sequence[Reading]) -> Iterator[_Line]:
    for trial in arm.trials:
        if trial.frame is None:
            continue
        for reading in readings:
            points = series(trial.frame, reading.source, reading.name)
            if points:
                yield _Line(reading.label, reading.dashed, trial.summary.trial, downsample(points))


def _ends(steps: Sequence[StepView]) -> Iterator[float]:
    for step in steps:
        yield step.settled or step.acknowledged or step.start


def _time_spec(
    arm: ArmView, lines: Sequence[_Line], axes: tuple[Axis, Axis], extent: tuple[float, float]
) -> Spec:
    import altair as alt

    seconds, size = axes
    longest, largest = extent[0] / seconds.factor, extent[1] / size.factor
    x = alt.X(
        "t:Q",
        title=None,
        scale=alt.Scale(domain=[0, longest], nice=False),
        axis=alt.Axis(grid=False, tickCount=6, labelExpr=tick(seconds), format=",~r"),
    )
    y = alt.Y(
        "v:Q",
        title=None,
        scale=alt.Scale(domain=[0, largest * 1.04], nice=False),
        axis=alt.Axis(domain=False, tickCount=4, labelExpr=tick(size), format=",~r"),
    )
    rows = [
        {
            "t": round(t / seconds.factor, 4),
            "v": round(v / size.factor, 4),
            "line": f"{line.trial} {line.label}",
            "dash": line.dashed,
            "label": line.label,
            "at": f"{t:,.1f} s",
            "size": quantity(v, "bytes"),
        }
        for line in lines
        for t, v in line.points
    ]
    data = alt.InlineData(values=rows)
    mark = {"interpolate": "step-after", "strokeWidth": 2 if len(arm.trials) == 1 else 1.25, "clip": True}
    curves = (
        alt.Chart(data)
        .mark_line(**mark)
        .encode(
            x=x,
            y=y,
            detail="line:N",
            color=alt.value(arm_colour(arm.index)),
            strokeDash=alt.StrokeDash(
                "dash:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [5, 3]]), legend=None
            ),
        )
    )
    touch = (
        alt.Chart(data)
        .mark_point(size=90, opacity=0, filled=True)
        .encode(
            x=x,
            y=y,
            tooltip=[
                alt.Tooltip("label:N", title="reading"),
                alt.Tooltip("size:N", title="value"),
                alt.Tooltip("at:N", title="time"),
            ],
        )
    )
    chart = alt.layer(*_step_layers(arm.shown.steps, seconds, longest), curves, touch)
    return finished(chart, PANEL_HEIGHT)


def _step_layers(steps: Sequence[StepView], seconds: Axis, longest: float) -> list[Any]:
    import altair as alt

    if not steps:
        return []
    marks = [
        {
            "t": round(step.start / seconds.factor, 4),
            "end": round((step.settled or step.acknowledged or step.start) / seconds.factor, 4),
            "text": f"{step.number} {clean(step.describe, 60)}: {clean(step.outcome, 20)}",
        }
        for step in steps
    ]
    data = alt.InlineData(values=marks)
    x = alt.X("t:Q")
    tooltip = [alt.Tooltip("text:N", title="step")]
    bands = (
        alt.Chart(data).mark_rect(color="var(--ink)", opacity=0.07).encode(x=x, x2="end:Q", tooltip=tooltip)
    )
    rules = (
        alt.Chart(data)
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.55)
        .encode(x=x, tooltip=tooltip)
    )
    numbers = (
        alt.Chart(alt.InlineData(values=_numbers(steps, seconds, longest)))
        .mark_text(color="var(--muted)", fontSize=11, baseline="bottom", dy=-3, fontWeight=600)
        .encode(x=x, y=alt.value(0), text="number:N")
    )
    return [bands, rules, numbers]


def _numbers(steps: Sequence[StepView], seconds: Axis, longest: float) -> list[Spec]:
    groups: list[list[StepView]] = []
    for step in steps:
        near = groups and step.start - groups[-1][0].start < _MARKER_GAP * longest * seconds.factor
        if near:
            groups[-1].append(step)
        else:
            groups.append([step])
    return [
        {
            "t": round(group[0].start / seconds.factor, 4),
            "number": str(group[0].number) if len(group) == 1 else f"{group[0].number}-{group[-1].number}",
        }
        for group in groups
    ]


def tick(axis: Axis) -> str:
    """Vega expression that writes a tick with its unit, and nought without."""
    return f"datum.value ? datum.label + ' {axis.unit}' : '0'"


def finished(chart: Any, height: int) -> Spec:
    """The chart as a spec that fills its place in the page."""
    import altair as alt

    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    sized = chart.properties(width="container", height=height, autosize=fit, config=base_config())
    spec: Spec = sized.to_dict()
    del spec["$schema"]  # embed.js says that it is Vega-Lite; no address belongs into the page
    return spec


def _time_alt(arm: ArmView, lines: Sequence[_Line], what: str) -> str:
    parts = []
    for line in lines[:6]:
        values = [value for _, value in line.points]
        first, last, peak = (quantity(value, "bytes") for value in (values[0], values[-1], max(values)))
        parts.append(f"{line.label}: from {first} to {last}, at the most {peak}")
    return clean(f"{what} over time, {arm.name}. {'; '.join(parts)}.", 600)


def policy_spec(rows: Sequence[Bar], largest: float) -> Spec:
    """Bars of what each policy frees; `largest` value of all panels. Hollow and dashed is modelled."""
    import altair as alt

    axis = bytes_axis(largest)
    scaled = [{**vars(row), "value": round(row.value / axis.factor, 4)} for row in rows]
    measures = list(dict.fromkeys(row.measure for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    bars = alt.Chart(alt.InlineData(values=scaled)).encode(
        y=alt.Y("policy:N", title=None, sort=policies, axis=alt.Axis(domain=False, labelLimit=170)),
        yOffset=alt.YOffset("measure:N", sort=measures),
        x=alt.X(
            "value:Q",
            title=None,
            scale=alt.Scale(domain=[0, max(largest / axis.factor, 1e-9) * _LABEL_ROOM], nice=False),
            axis=alt.Axis(tickCount=4, labelExpr=tick(axis), format=",~r"),
        ),
        tooltip=[
            alt.Tooltip("policy:N", title="policy"),
            alt.Tooltip("measure:N", title="what"),
            alt.Tooltip("text:N", title="how much"),
            alt.Tooltip("origin:N", title="origin"),
        ],
    )
    colours = alt.Scale(domain=measures, range=["var(--tables)", "var(--given-back)"][: len(measures)])
    fill = alt.Color("measure:N", scale=colours, legend=None)
    shapes = bars.mark_bar(strokeWidth=1.2, height={"band": 0.82}).encode(
        color=fill,
        stroke=alt.Stroke("measure:N", scale=colours, legend=None),
        fillOpacity=alt.condition("datum.origin == 'modelled'", alt.value(0.22), alt.value(0.9)),
        strokeDash=alt.StrokeDash(
            "origin:N", scale=alt.Scale(domain=["modelled", "predicted"], range=[[4, 2], [1, 0]]), legend=None
        ),
    )
    labels = bars.mark_text(align="left", dx=4, fontSize=10.5, color="var(--ink)").encode(text="text:N")
    return finished(alt.layer(shapes, labels), _BAR_HEIGHT * len(rows))


def legend_trial(arms: Sequence[ArmView]) -> TrialView | None:
    """A trial whose steps explain the step numbers of all panels, if every arm has the same steps."""
    shown = [arm.shown for arm in arms if arm.shown.steps]
    described = {tuple(step.describe for step in trial.steps) for trial in shown}
    return shown[0] if len(described) == 1 else None

"""Resize curves: memory unplugged, inflated or reported against seconds since the request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from orchestrator.analysis.arms import ArmView, Point, StepView
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.scale import Axis, bytes_axis, time_axis
from orchestrator.analysis.text import clean, percent, seconds, size
from orchestrator.report.charts import (
    PANEL_HEIGHT,
    Panel,
    Spec,
    arm_colour,
    downsample,
    finished,
    tick,
)
from orchestrator.report.section import SECTIONS, Figure, Section, colour, seconds_note

_ROUNDED: Final = 0.0005  # seconds: a curve's times are written to the millisecond
_NEAR: Final = 0.1  # dashed lines nearer than this share of the axis share a label
_WIDTH_ROOM: Final = 1.05  # axis beyond the longest curve, for the step's number at its end
_HEIGHT_ROOM: Final = 1.16  # and above the highest line, for what is written on it


@SECTIONS.register("resize")
@dataclass(frozen=True)
class Yields(Section):
    """A panel for each arm."""

    order: ClassVar = 120
    title: ClassVar = "Memory unplugged, inflated and reported over time"

    figures: tuple[Figure, ...]
    seconds: str

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        figures = tuple(_figure(panel) for panel in yield_panels(analysis.arms))
        return cls(figures, seconds_note(analysis)) if figures else None

    def charts(self) -> Iterable[Figure]:
        return self.figures


def _figure(panel: Panel) -> Figure:
    arm = panel.arm
    steps = [f"{step.number} {step.describe}" for step in taking_steps(arm)]
    note = [arm.shown.summary.trial, *steps] if len(arm.trials) > 1 else steps
    return Figure(
        f"chart-resize-{arm.index}",
        panel.spec,
        panel.alt,
        title=clean(arm.name, 60),
        note=clean(" · ".join(note), 300),
        colour=colour(arm),
    )


def taking_steps(arm: ArmView) -> list[StepView]:
    """Steps of the trial that stands for the arm which took memory and recorded how it came."""
    return [step for step in arm.shown.steps if step.takes and step.curve]


def yield_panels(arms: Sequence[ArmView]) -> list[Panel]:
    """A panel for each arm with such a step, all on the same axes; none where no arm has one."""
    chosen = [(arm, steps) for arm in arms if (steps := taking_steps(arm))]
    if not chosen:
        return []
    all_steps = [step for _, steps in chosen for step in steps]
    longest = max(1.0, *(_line(step)[-1][0] for step in all_steps))
    values = [value for step in all_steps for _, value in step.curve]
    largest = max(1.0, *values, *(step.requested_bytes or 0 for step in all_steps))
    axes = time_axis(longest), bytes_axis(largest)
    extent = longest, min(0.0, *values), largest
    return [Panel(arm, _spec(arm, steps, axes, extent), _alt(arm, steps)) for arm, steps in chosen]


def _line(step: StepView) -> list[Point]:
    """The curve to the end of the step: what was seen last stood until then."""
    points = downsample(step.curve)
    asked = step.began if step.requested is None else step.requested
    until = 0.0 if step.ended is None else step.ended - asked
    return [*points, (until, points[-1][1])] if until > points[-1][0] else points


def _marks(step: StepView) -> Iterator[tuple[str, str, Point]]:
    """What is marked on a curve: shape, words, and where."""
    for shape, words, when in (
        ("circle", "acknowledged", step.acknowledged),
        ("diamond", "settled", step.settled),
    ):
        if when is not None:
            t = max(0.0, when - step.start)
            before = [value for at, value in step.curve if at <= t + _ROUNDED]
            if before:  # of a curve that begins later, nothing was read then
                yield shape, words, (t, before[-1])


def _spec(
    arm: ArmView, steps: Sequence[StepView], axes: tuple[Axis, Axis], extent: tuple[float, float, float]
) -> Spec:
    import altair as alt

    time, memory = axes
    longest, lowest, largest = extent[0] / time.factor, extent[1] / memory.factor, extent[2] / memory.factor
    x = alt.X(
        "t:Q",
        title=None,
        scale=alt.Scale(domain=[0, longest * _WIDTH_ROOM], nice=False),
        axis=alt.Axis(grid=False, tickCount=6, labelExpr=tick(time), format=",~r"),
    )
    y = alt.Y(
        "v:Q",
        title=None,
        scale=alt.Scale(domain=[lowest, largest * _HEIGHT_ROOM], nice=False),
        axis=alt.Axis(domain=False, tickCount=4, labelExpr=tick(memory), format=",~r"),
    )
    tooltip = [
        alt.Tooltip("step:N", title="step"),
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("size:N", title="taken"),
        alt.Tooltip("at:N", title="after"),
    ]

    def row(step: StepView, point: Point, what: str, **more: str) -> Spec:
        return {
            "t": round(point[0] / time.factor, 4),
            "v": round(point[1] / memory.factor, 4),
            "step": f"{step.number} {clean(step.describe, 60)}",
            "what": what,
            "size": size(point[1]),
            "at": f"{point[0]:,.1f} s",
            **more,
        }

    colour = arm_colour(arm.index)
    data = alt.InlineData(values=[row(step, point, "taken") for step in steps for point in _line(step)])
    curves = (
        alt.Chart(data)
        .mark_line(interpolate="step-after", strokeWidth=2, color=colour)
        .encode(x=x, y=y, detail="step:N")
    )
    touch = alt.Chart(data).mark_point(size=90, opacity=0, filled=True).encode(x=x, y=y, tooltip=tooltip)
    seen = [row(step, point, what, shape=shape) for step in steps for shape, what, point in _marks(step)]
    marks = (
        alt.Chart(alt.InlineData(values=seen))
        .mark_point(size=55, filled=True, fill="var(--paper)", stroke=colour, strokeWidth=1.6, opacity=1)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip,
            shape=alt.Shape(
                "shape:N",
                scale=alt.Scale(domain=["circle", "diamond"], range=["circle", "diamond"]),
                legend=None,
            ),
        )
    )
    layers = [*_asked(steps, memory, largest, colour, y), curves, marks, touch]
    if len(steps) > 1:
        layers.append(_numbers([row(step, _line(step)[-1], str(step.number)) for step in steps], x, y))
    return finished(alt.layer(*layers), PANEL_HEIGHT)


def _asked(steps: Sequence[StepView], memory: Axis, largest: float, colour: str, y: Any) -> list[Any]:
    """A dashed line for what each step asked for, with its words."""
    import altair as alt

    lines = sorted(
        ((step.requested_bytes / memory.factor, step) for step in steps if step.requested_bytes),
        key=lambda line: -line[0],
    )
    if not lines:
        return []
    groups: list[list[tuple[float, StepView]]] = []
    for line in lines:
        if groups and groups[-1][0][0] - line[0] < _NEAR * largest:
            groups[-1].append(line)
        else:
            groups.append([line])

    def label(value: float, step: StepView) -> str:
        number = f"{step.number} " if len(steps) > 1 else ""
        return f"{number}requested {size(value * memory.factor)}"

    rules = alt.InlineData(values=[{"v": round(value, 4)} for value, _ in lines])
    words = alt.InlineData(
        values=[
            {"v": round(group[0][0], 4), "text": ", ".join(label(*line) for line in group[:3])}
            for group in groups
        ]
    )
    return [
        alt.Chart(rules).mark_rule(color=colour, strokeDash=[5, 3], strokeWidth=1.2, opacity=0.8).encode(y=y),
        alt.Chart(words)
        .mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color="var(--muted)")
        .encode(x=alt.value("width"), y=y, text="text:N"),
    ]


def _numbers(rows: list[Spec], x: Any, y: Any) -> Any:
    import altair as alt

    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_text(align="left", dx=5, fontSize=11, fontWeight=600, color="var(--muted)")
        .encode(x=x, y=y, text="what:N")
    )


def _alt(arm: ArmView, steps: Sequence[StepView]) -> str:
    parts = []
    for step in steps[:6]:
        came, asked = step.curve[-1][1], step.requested_bytes
        part = f"{step.number} {clean(step.describe, 60)}: {size(came)}"
        part += f" of {size(asked)} requested ({percent(came, asked)})" if asked else ""
        for _, words, (t, _) in _marks(step):
            part += f", {words} after {seconds(t)}"
        parts.append(part)
    return clean(f"Memory taken over time, {arm.name}. {'; '.join(parts)}.", 900)

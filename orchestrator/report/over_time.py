"""Sections of charts over time: readings of each trial from its first step on, with the steps marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from orchestrator.analysis.arms import ArmView, Point, StepView, TrialView, series
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.scale import Axis, axis_of, time_axis
from orchestrator.analysis.text import clean, quantity
from orchestrator.probes import DeclaredSeries
from orchestrator.report.charts import PANEL_HEIGHT, Panel, Spec, arm_colour, downsample, finished, tick
from orchestrator.report.section import Figure, Section, colour, seconds_note
from orchestrator.series import Chart

_MARKER_GAP: Final = 0.045  # step numbers nearer than this share of the axis stand together


@dataclass(frozen=True)
class _Line:
    label: str
    dashed: bool
    trial: str
    unit: str
    points: Sequence[Point]


@dataclass(frozen=True)
class OverTime(Section):
    """A section of such charts, as probes declare it. `steps` explain the numbers of all panels."""

    fragment: ClassVar = "over-time"
    chart: ClassVar[Chart]
    series: ClassVar[tuple[DeclaredSeries, ...]]

    figures: tuple[Figure, ...]
    steps: tuple[StepView, ...]
    seconds: str

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        if cls.chart.needs_moments and not analysis.second_level:
            return None
        panels = time_panels(analysis.arms, cls.series, cls.title)
        if not panels:
            return None
        key = _legend_trial(analysis.arms)
        figures = tuple(cls._figure(number, panel) for number, panel in enumerate(panels))
        return cls(figures, key.steps if key else (), seconds_note(analysis))

    @property
    def lead(self) -> str:
        """What is drawn, in words."""
        return self.chart.lead

    def charts(self) -> Iterable[Figure]:
        return self.figures

    @classmethod
    def _figure(cls, number: int, panel: Panel) -> Figure:
        trials = len(panel.arm.trials)
        note = f"{trials} trials, steps of {clean(panel.arm.shown.summary.trial, 40)}" if trials > 1 else ""
        return Figure(
            f"chart-{cls.chart.name}-{number}",
            panel.spec,
            panel.alt,
            title=clean(panel.arm.name, 60),
            note=note,
            colour=colour(panel.arm),
        )


def time_panels(arms: Sequence[ArmView], drawn: Sequence[DeclaredSeries], what: str) -> list[Panel]:
    """Series of one unit over time from the first step on: a panel for each arm that has such readings."""
    (unit,) = {one.series.unit for one in drawn}
    lines = {arm.index: list(_lines(arm, drawn)) for arm in arms}
    points = [point for arm in arms for line in lines[arm.index] for point in line.points]
    if not points:
        return []
    ends = [end for arm in arms for end in _ends(arm.shown)]
    longest = max(1.0, *(time for time, _ in points), *ends)
    largest = max(value for _, value in points)
    axes = time_axis(longest), axis_of(largest, unit)
    return [
        Panel(
            arm,
            _time_spec(arm, lines[arm.index], axes, (longest, largest)),
            _time_alt(arm, lines[arm.index], what),
        )
        for arm in arms
        if lines[arm.index]
    ]


def _lines(arm: ArmView, drawn: Sequence[DeclaredSeries]) -> Iterator[_Line]:
    for trial in arm.trials:
        if trial.frame is None:
            continue
        for one in drawn:
            points = _since(trial.origin, series(trial.frame, one.source, one.series.name))
            if points and (line := one.series.line):
                yield _Line(line.label, line.dashed, trial.summary.trial, one.series.unit, downsample(points))


def _since(origin: float, points: Sequence[Point]) -> list[Point]:
    """The points from `origin` on, in seconds since then; the last one before it holds at 0."""
    before = [value for time, value in points if time < origin]
    after = [(time - origin, value) for time, value in points if time >= origin]
    return [(0.0, before[-1]), *after] if before else after


def _ends(trial: TrialView) -> Iterator[float]:
    for step in trial.steps:
        yield (step.settled or step.acknowledged or step.start) - trial.origin


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
            "size": quantity(v, line.unit),
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
    chart = alt.layer(*_step_layers(arm.shown, seconds, longest), curves, touch)
    return finished(chart, PANEL_HEIGHT)


def _step_layers(trial: TrialView, seconds: Axis, longest: float) -> list[Any]:
    import altair as alt

    steps, origin = trial.steps, trial.origin
    if not steps:
        return []
    marks = [
        {
            "t": round((step.start - origin) / seconds.factor, 4),
            "end": round(((step.settled or step.acknowledged or step.start) - origin) / seconds.factor, 4),
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
        alt.Chart(alt.InlineData(values=_numbers(trial, seconds, longest)))
        .mark_text(color="var(--muted)", fontSize=11, baseline="bottom", dy=-3, fontWeight=600)
        .encode(x=x, y=alt.value(0), text="number:N")
    )
    return [bands, rules, numbers]


def _numbers(trial: TrialView, seconds: Axis, longest: float) -> list[Spec]:
    groups: list[list[StepView]] = []
    for step in trial.steps:
        near = groups and step.start - groups[-1][0].start < _MARKER_GAP * longest * seconds.factor
        if near:
            groups[-1].append(step)
        else:
            groups.append([step])
    return [
        {
            "t": round((group[0].start - trial.origin) / seconds.factor, 4),
            "number": str(group[0].number) if len(group) == 1 else f"{group[0].number}-{group[-1].number}",
        }
        for group in groups
    ]


def _time_alt(arm: ArmView, lines: Sequence[_Line], what: str) -> str:
    parts = []
    for line in lines[:6]:
        values = [value for _, value in line.points]
        first, last, peak = (quantity(value, line.unit) for value in (values[0], values[-1], max(values)))
        parts.append(f"{line.label}: from {first} to {last}, at most {peak}")
    return clean(f"{what} over time, {arm.name}. {'; '.join(parts)}.", 600)


def _legend_trial(arms: Sequence[ArmView]) -> TrialView | None:
    """A trial whose steps explain the step numbers of all panels, if every arm has the same steps."""
    shown = [arm.shown for arm in arms if arm.shown.steps]
    described = {tuple(step.describe for step in trial.steps) for trial in shown}
    return shown[0] if len(described) == 1 else None

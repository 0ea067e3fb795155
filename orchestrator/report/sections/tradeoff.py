"""Policies by what they cost page tables and what they free: one figure for all arms, modelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from orchestrator.analysis.arms import ArmView
from orchestrator.analysis.policies import MEMORY_FREED, TABLES_FREED, policy_bars
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.scale import bytes_axis
from orchestrator.analysis.text import clean, size
from orchestrator.report.charts import PANEL_HEIGHT, Spec, arm_colour, finished, tick
from orchestrator.report.section import SECTIONS, Figure, Section, colour

_HEIGHT: Final = PANEL_HEIGHT + 90
_NEAR: Final = 0.06  # points nearer than this share of both axes share a number
_ROOM: Final = 1.12

Point = tuple[ArmView, str, int, int]  # arm, policy, table bytes freed, bytes in blocks freed


@dataclass(frozen=True)
class Group:
    """Policies whose points lie together, and where the first of them lies."""

    number: int
    x: float
    y: float
    policies: str


@SECTIONS.register("tradeoff")
@dataclass(frozen=True)
class Tradeoff(Section):
    """One figure; `arms` are (colour, name) of the legend."""

    order: ClassVar = 175
    title: ClassVar = "Page-table bytes against blocks"

    figure: Figure
    groups: tuple[Group, ...]
    arms: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        points = tradeoff_points(analysis.arms)
        if not points:
            return None
        spec, groups = tradeoff_spec(points)
        figure = Figure("chart-tradeoff", spec, tradeoff_alt(points))
        return cls(figure, groups, tuple((colour(arm), clean(arm.name, 60)) for arm in analysis.arms))

    def charts(self) -> Iterable[Figure]:
        return (self.figure,)


def tradeoff_points(arms: Sequence[ArmView]) -> list[Point]:
    """Policies at the snapshot in which tables are counted, of which both figures are modelled."""
    points = []
    for arm in arms:
        tables: dict[str, int] = {}
        for bar in policy_bars(arm):
            if bar.origin != "modelled":  # what is predicted has no place on these axes
                continue
            if bar.measure == TABLES_FREED:
                tables[bar.policy] = bar.value
            elif bar.measure == MEMORY_FREED and bar.policy in tables:
                points.append((arm, bar.policy, tables[bar.policy], bar.value))
    return points


def tradeoff_spec(points: Sequence[Point]) -> tuple[Spec, tuple[Group, ...]]:
    """Table bytes freed to the right, memory in blocks upwards; hollow is modelled, colours are arms. And
    what its numbers stand for."""
    import altair as alt

    across = bytes_axis(max(1, *(tables for _, _, tables, _ in points)))
    up = bytes_axis(max(1, *(memory for _, _, _, memory in points)))
    far = max(tables for _, _, tables, _ in points) / across.factor or 1.0
    high = max(memory for _, _, _, memory in points) / up.factor or 1.0
    rows = [
        {
            "x": round(tables / across.factor, 4),
            "y": round(memory / up.factor, 4),
            "arm": clean(arm.name, 60),
            "policy": policy,
            "tables": size(tables),
            "memory": size(memory),
        }
        for arm, policy, tables, memory in points
    ]
    arms = list(dict.fromkeys((clean(arm.name, 60), arm.index) for arm, *_ in points))
    groups = _grouped(rows, far, high)
    x = alt.X(
        "x:Q",
        title="page-table bytes freed (modelled)",
        scale=alt.Scale(domain=[0, far * _ROOM], nice=False),
        axis=alt.Axis(tickCount=5, labelExpr=tick(across), format=",~r"),
    )
    y = alt.Y(
        "y:Q",
        title="memory in blocks freed (modelled)",
        scale=alt.Scale(domain=[0, high * _ROOM], nice=False),
        axis=alt.Axis(domain=False, tickCount=4, labelExpr=tick(up), format=",~r"),
    )
    dots = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(size=80, strokeWidth=2, opacity=1, fill="var(--paper)")
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "arm:N",
                scale=alt.Scale(
                    domain=[name for name, _ in arms], range=[arm_colour(index) for _, index in arms]
                ),
                legend=None,
            ),
            shape=alt.Shape(
                "arm:N",
                scale=alt.Scale(
                    domain=[name for name, _ in arms],
                    range=["circle", "square", "diamond", "triangle-up"] * (len(arms) // 4 + 1),
                ),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("policy:N"),
                alt.Tooltip("tables:N", title="tables freed, modelled"),
                alt.Tooltip("memory:N", title="in blocks freed, modelled"),
            ],
        )
    )
    numbers = (
        alt.Chart(alt.InlineData(values=[{"x": g.x, "y": g.y, "number": str(g.number)} for g in groups]))
        .mark_text(align="left", dx=8, dy=-8, fontSize=11, fontWeight=600, color="var(--muted)")
        .encode(x=x, y=y, text="number:N")
    )
    return finished(alt.layer(dots, numbers), _HEIGHT), groups


def tradeoff_alt(points: Sequence[Point]) -> str:
    """The same in words."""
    parts = [
        f"{policy} on {clean(arm.name, 40)}: {size(tables)} of tables, {size(memory)} in blocks"
        for arm, policy, tables, memory in points
    ]
    return clean(f"Modelled trade-off of policies. {'; '.join(parts)}.", 1600)


def _grouped(rows: Sequence[dict[str, Any]], far: float, high: float) -> tuple[Group, ...]:
    """Points that lie together have one number: at any width, names beside them would run into each other."""
    groups: list[tuple[float, float, list[str]]] = []
    for row in rows:
        for x, y, names in groups:
            if abs(x - row["x"]) < _NEAR * far and abs(y - row["y"]) < _NEAR * high:
                if row["policy"] not in names:
                    names.append(row["policy"])
                break
        else:
            groups.append((row["x"], row["y"], [row["policy"]]))
    return tuple(Group(number, x, y, ", ".join(names)) for number, (x, y, names) in enumerate(groups, 1))

"""The page of `orchestrator model sweep`: the trade-off front, and heat maps over the grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

from orchestrator.analysis.scale import Axis, bytes_axis
from orchestrator.analysis.sweep import SweepView, choice_of, middle, shown
from orchestrator.analysis.text import clean, size
from orchestrator.report.charts import ARM_COLOURS, finished, tick
from orchestrator.report.frame import fill, scripts
from orchestrator.store.atomic import replace_text
from orchestrator.store.sweep_file import SweepRow

MOST_MAPS: Final = 24
_CELL: Final = 26
_FRONT_HEIGHT: Final = 360
_MOST_LABELS: Final = 12
_CHOICE: Final = "policy, action"
_TITLE: Final = b": sweep</title>"
_MICRO: Final = 1e6


def is_page(path: Path) -> bool:
    """Whether a file is a page that `write_page` wrote."""
    with path.open("rb") as file:
        return _TITLE in file.read(1 << 16)


def write_page(path: Path, view: SweepView) -> None:
    """Write the page; it opens without a network, and needs no other file. The same table, the same page."""
    facts, asked = view.facts, view.question
    specs: dict[str, Any] = {"chart-front": _front_spec(view)}
    maps = []
    panels = list(_panels(view))
    for number, panel in enumerate(panels[:MOST_MAPS]):
        place = f"chart-map-{number}"
        specs[place] = _map_spec(view, panel)
        maps.append({"id": place, "title": clean(panel.title, 200), "alt": clean(panel.words(view), 900)})
    seeds = " Each is the median of the seeds." if len(set(_seeds(view))) > 1 else ""
    text = fill(
        "sweep.html.j2",
        scripts(),
        title=clean(f"{facts.name}: sweep"),
        name=clean(facts.name),
        description=clean(facts.description, 1000),
        answer=[clean(sentence, 2000) for sentence in view.sentences()],
        trade_off=f"{asked.across.title} against {asked.up.title}: a mark for each policy and action at each "
        "point of the grid. Filled is on the front of its point, which a line joins.",
        choices=[
            {
                "name": clean(choice),
                "on_front": view.times_on_front[choice],
                "cells": [view.span(choice, one) for one in asked.compared],
            }
            for choice in view.choices
        ],
        headings=[one.title for one in asked.compared],
        colours=ARM_COLOURS,
        points=len(view.points),
        front_alt=clean(" ".join(view.sentences()), 900),
        note="On the front: no other policy and action of the same point is as good in all columns, times to "
        "two digits, and better in one. At typical costs; the table has the ranges.",
        maps=maps,
        maps_title=asked.mapped.title[:1].upper() + asked.mapped.title[1:],
        maps_lead=f"{_axes_words(view)}{seeds} All maps have one scale.",
        left_out=f"{len(panels) - MOST_MAPS} more maps are not drawn: the table has them."
        if len(panels) > MOST_MAPS
        else "",
        axes=[
            (clean(axis), clean(", ".join(shown(axis, value) for value in view.values(axis)), 900))
            for axis in facts.axes
        ],
        inputs=clean(facts.inputs_sha256),
        specs=specs,
    )
    replace_text(path, text)


class _Panel:
    """One heat map: what stands across and up, and the rows of each cell."""

    def __init__(self, view: SweepView, across: str, up: str, fixed: dict[str, object]) -> None:
        self.across, self.up = across, up
        self.title = ", ".join(
            shown(axis, value) if axis == _CHOICE else f"{axis} {shown(axis, value)}"
            for axis, value in fixed.items()
        )
        self.cells: dict[tuple[str, str], list[SweepRow]] = {}
        acrosses, ups = _labels(view, across), _labels(view, up)
        for row in view.rows:
            if all(_at(row, axis) == value for axis, value in fixed.items()):
                key = (acrosses[_at(row, across)], ups[_at(row, up)])
                self.cells.setdefault(key, []).append(row)

    def words(self, view: SweepView) -> str:
        """For those who do not see it."""
        measure = view.question.mapped
        return f"{measure.title}: " + "; ".join(
            f"{across}, {up}: {measure.write(middle(rows, measure))}"
            for (across, up), rows in self.cells.items()
        )


def _panels(view: SweepView) -> Iterator[_Panel]:
    varied = list(view.varied)
    across = varied[0] if varied else (view.facts.axes[0])
    up = varied[1] if len(varied) > 1 else _CHOICE
    rest = [axis for axis in [*varied, _CHOICE] if axis not in {across, up}]
    values = [view.choices if axis == _CHOICE else view.values(axis) for axis in rest]
    for combination in product(*values):
        panel = _Panel(view, across, up, dict(zip(rest, combination, strict=True)))
        if panel.cells:
            yield panel


def _at(row: SweepRow, axis: str) -> object:
    return choice_of(row) if axis == _CHOICE else row[axis]


def _labels(view: SweepView, axis: str) -> dict[object, str]:
    """How each value of an axis is written: in full where its rounded text is that of another as well."""
    labels = {value: shown(axis, value) for value in dict.fromkeys(_at(row, axis) for row in view.rows)}
    return labels if len(set(labels.values())) == len(labels) else {value: str(value) for value in labels}


def _seeds(view: SweepView) -> Iterator[object]:
    return (row.get("seed") for row in view.rows)


def _axes_words(view: SweepView) -> str:
    panel = next(_panels(view))
    return f"Across: {clean(panel.across)}; up: {clean(panel.up)}."


def _map_spec(view: SweepView, panel: _Panel) -> Any:
    import altair as alt

    measure = view.question.mapped
    everywhere = [measure.of(row) for row in view.rows]
    low, high = min(everywhere), max(everywhere)
    acrosses = list(dict.fromkeys(across for across, _ in panel.cells))
    ups = list(dict.fromkeys(up for _, up in panel.cells))
    values = [
        {"x": across, "y": up, "v": value, "text": measure.write(value)}
        for (across, up), rows in panel.cells.items()
        for value in [middle(rows, measure)]
    ]
    scale = alt.Scale(scheme="viridis", domain=[low, high if high > low else low + 1])
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("x:N", sort=acrosses, title=panel.across, axis=alt.Axis(labelAngle=0, domain=False)),
        y=alt.Y("y:N", sort=ups, title=None, axis=alt.Axis(domain=False, labelLimit=150)),
        tooltip=[
            alt.Tooltip("x:N", title=panel.across),
            alt.Tooltip("y:N", title=panel.up),
            alt.Tooltip("text:N", title=measure.title),
        ],
    )
    cells = base.mark_rect().encode(color=alt.Color("v:Q", scale=scale, legend=None))
    if len(acrosses) > _MOST_LABELS:
        return finished(cells, _CELL * len(ups) + 40)
    light = alt.condition(f"datum.v > {(low + high) / 2}", alt.value("black"), alt.value("white"))
    words = base.mark_text(fontSize=10.5).encode(text="text:N", color=light)
    return finished(alt.layer(cells, words), _CELL * len(ups) + 40)


def _front_spec(view: SweepView) -> Any:
    import altair as alt

    across, up = view.question.across, view.question.up
    values: list[dict[str, Any]] = [
        {
            "x": across.of(row),
            "y": up.of(row) * _MICRO,
            "what": choice_of(row),
            "front": (point, choice_of(row)) in view.front,
            "point": point,
            "at": ", ".join(f"{axis} {shown(axis, row[axis])}" for axis in view.facts.axes),
            "across": across.write(across.of(row)),
            "up": up.write(up.of(row)),
        }
        for point, rows in view.points.items()
        for row in rows
    ]
    axis = bytes_axis(max(across.of(row) for row in view.rows)) if across.write is size else Axis("", 1.0)
    for value in values:
        value["x"] /= axis.factor
    # Its linear part reaches to the smallest that is not nothing: many add none at all.
    least = min((value["y"] for value in values if value["y"] > 0), default=1.0)
    y = alt.Y(
        "y:Q",
        title=f"{up.title}, microseconds",
        scale=alt.Scale(type="symlog", constant=10 ** math.floor(math.log10(least))),
        axis=alt.Axis(tickCount=6, format=",~r"),
    )
    x = alt.X(
        "x:Q",
        title=across.title,
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=8, labelExpr=tick(axis), format=",~r"),
    )
    colours = alt.Scale(
        domain=list(view.choices),
        range=[f"var(--arm{number % ARM_COLOURS})" for number in range(len(view.choices))],
    )
    base = alt.Chart(alt.InlineData(values=values)).encode(x=x, y=y)
    lines = (
        base.transform_filter("datum.front")
        .mark_line(color="var(--muted)", strokeWidth=1, opacity=0.5)
        .encode(detail="point:N")
    )
    marks = base.mark_point(size=46, opacity=0.9).encode(
        color=alt.Color("what:N", scale=colours, legend=None),
        fill=alt.condition(
            "datum.front", alt.Color("what:N", scale=colours, legend=None), alt.value("transparent")
        ),
        tooltip=[
            alt.Tooltip("what:N", title="policy, action"),
            alt.Tooltip("at:N", title="point"),
            alt.Tooltip("across:N", title=across.title),
            alt.Tooltip("up:N", title=up.title),
            alt.Tooltip("front:N", title="on the front"),
        ],
    )
    return finished(alt.layer(lines, marks), _FRONT_HEIGHT)

"""What other policies would have freed at the snapshot in which tables are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from orchestrator.analysis.policies import Bar, policies_explained, policy_bars, policy_rows
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.scale import bytes_axis
from orchestrator.analysis.text import clean, size
from orchestrator.report.charts import Spec, finished, tick
from orchestrator.report.section import SECTIONS, Figure, Section, colour

_BAR_HEIGHT: Final = 18
_LABEL_ROOM: Final = 1.6  # axis beyond the longest bar, in bars, for what is written at its end


@SECTIONS.register("policies")
@dataclass(frozen=True)
class Policies(Section):
    """Bars for each arm, each policy explained, and all figures."""

    order: ClassVar = 170
    title: ClassVar = "What other policies would have freed"

    figures: tuple[Figure, ...]
    explained: tuple[tuple[str, str], ...]
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        rows = policy_rows(analysis.view)
        if not rows:
            return None
        return cls(tuple(_figures(analysis)), tuple(policies_explained(analysis.view)), tuple(rows))

    def charts(self) -> Iterable[Figure]:
        return self.figures


def _figures(analysis: RunAnalysis) -> Iterator[Figure]:
    chosen = [(arm, policy_bars(arm)) for arm in analysis.arms]
    largest = max((bar.value for _, bars in chosen for bar in bars), default=0)
    for arm, bars in chosen:
        if bars:
            label = clean(arm.shown.summary.tables_snapshot, 40)
            words = "; ".join(f"{bar.policy}, {bar.measure}: {bar.text}" for bar in bars)
            yield Figure(
                f"chart-policies-{arm.index}",
                policy_spec(bars, largest),
                clean(f"Modelled policies for {arm.name} at snapshot {label}. {words}.", 900),
                title=clean(arm.name, 60),
                note=f"at snapshot {label}{arm.of_one}, modelled",
                colour=colour(arm),
            )


def policy_spec(rows: Sequence[Bar], largest: float) -> Spec:
    """Bars of what each policy frees; `largest` value of all panels. Hollow and dashed is modelled."""
    import altair as alt

    axis = bytes_axis(largest)
    # At the end of a bar stands its size alone: more would not fit a narrow page; the rest is a tooltip.
    scaled = [
        {
            **vars(row),
            "value": round(row.value / axis.factor, 4),
            "label": size(row.value) if row.value else "0",
        }
        for row in rows
    ]
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
    labels = bars.mark_text(align="left", dx=4, fontSize=10.5, color="var(--ink)").encode(text="label:N")
    return finished(alt.layer(shapes, labels), _BAR_HEIGHT * len(rows))

"""Each arm against the first: a chart with a dot and an interval for each metric, in percent, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from orchestrator.analysis.arm_table import ROWS
from orchestrator.analysis.differences import (
    STATISTIC,
    DifferenceGroup,
    correction_note,
    difference_groups,
    heading,
    marked,
    significance_sentences,
    with_sign,
)
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.text import clean
from orchestrator.report.charts import Spec, finished
from orchestrator.report.section import SECTIONS, Figure, Section
from orchestrator.stats import Difference, Significance
from orchestrator.summary import METRIC
from orchestrator.verdict import Comparison, PairOfArms

_ROW: Final = 22  # pixels for a metric
_FURTHEST: Final = 200.0  # percent: what goes beyond stands at the edge, its number beside it
_NEAREST: Final = 5.0  # percent: an axis that shows less would make much of nothing
_ROOM: Final = 0.04  # of the axis, beyond the furthest, so that no dot is cut
_ENDS: Final = ("low", "at", "high")
# Headings of the table of arms, short enough to stand before each label.
_SHORT: Final = {"Guest page tables": "tables", "Hot-unplug": "unplug", "Blocks still plugged": "blocks"}

# As in the legend of the page: the direction of a significant difference, or none.
BETTER, WORSE, CHANGED, NOT_SIGNIFICANT = "better", "worse", "changed", "not significant"
_COLOURS: Final = {
    BETTER: "var(--good)",
    WORSE: "var(--bad)",
    CHANGED: "var(--arm0)",
    NOT_SIGNIFICANT: "var(--muted)",
}


@dataclass(frozen=True)
class PairSection:
    """Two arms: who, what may be said, every metric. `colour` is the second arm's; `several`: one of them has
    more than one trial."""

    heading: str
    colour: int
    sentences: tuple[str, ...]
    first: str
    second: str
    groups: tuple[DifferenceGroup, ...]
    marks: str
    correction: str
    several: bool
    figure: Figure | None


@SECTIONS.register("differences")
@dataclass(frozen=True)
class Differences(Section):
    """Pairs, (css class, words) of the colours in their charts, and what the figures are."""

    order: ClassVar = 40
    title: ClassVar = "Differences between arms"

    pairs: tuple[PairSection, ...]
    legend: tuple[tuple[str, str], ...]
    statistic: str = STATISTIC
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, analysis: RunAnalysis) -> Self | None:
        comparison = analysis.verdicts.comparison
        if not comparison or not comparison.pairs:
            return None
        pairs = tuple(_section(comparison, index, pair) for index, pair in enumerate(comparison.pairs))
        notes = tuple(clean(f"{note[0].upper()}{note[1:]}.", 600) for note in comparison.notes)
        return cls(pairs, tuple(legend(comparison.pairs)), notes=notes)

    def charts(self) -> Iterable[Figure]:
        return [pair.figure for pair in self.pairs if pair.figure]


def _section(comparison: Comparison, index: int, pair: PairOfArms) -> PairSection:
    groups = tuple(difference_groups(comparison, pair))
    spec = effects_spec(pair)
    return PairSection(
        heading=heading(comparison, pair),
        colour=index + 1,
        sentences=tuple(significance_sentences(comparison, pair)),
        first=clean(pair.first.name, 40),
        second=clean(pair.second.name, 40),
        groups=groups,
        marks=", ".join(marked(groups)),
        correction=correction_note(pair, comparison.level)[0],
        several=max(len(pair.first.trials), len(pair.second.trials)) > 1,
        figure=Figure(f"chart-differences-{index}", spec, effects_alt(pair)) if spec else None,
    )


def effects_spec(pair: PairOfArms) -> Spec | None:
    """Dots at the difference in percent of the first arm's mean; None where no metric can be drawn so.

    Metrics that did not differ at all, or were nothing in the first arm, stand in the table only.
    """
    import altair as alt

    drawn = _drawn(pair)
    if not drawn:
        return None
    rows = [_values(metric, label, pair.metrics[metric]) for metric, label in drawn]
    ends = [float(row[key]) for row in rows for key in _ENDS if key in row]
    least, most = max(min(-_NEAREST, *ends), -_FURTHEST), min(max(_NEAREST, *ends), _FURTHEST)
    for row in rows:
        row |= {key: max(least, min(most, row[key])) for key in _ENDS if key in row}
    y = alt.Y(
        "metric:N",
        title=None,
        sort=[label for _, label in drawn],
        axis=alt.Axis(domain=False, labelLimit=200, grid=False),
    )
    x = alt.X(
        "at:Q",
        title=None,
        scale=alt.Scale(domain=[least - _ROOM * (most - least), most + _ROOM * (most - least)], nice=False),
        axis=alt.Axis(
            tickCount=5, labelExpr="datum.value > 0 ? '+' + datum.label + ' %' : datum.label + ' %'"
        ),
    )
    colour = alt.Color(
        "direction:N", scale=alt.Scale(domain=[*_COLOURS], range=[*_COLOURS.values()]), legend=None
    )
    tooltip = [
        alt.Tooltip("metric:N", title="metric"),
        alt.Tooltip("text:N", title="difference"),
        alt.Tooltip("interval:N", title="95 %"),
        alt.Tooltip("significance:N", title="significance"),
    ]
    zero = (
        alt.Chart(alt.InlineData(values=[{"at": 0}])).mark_rule(color="var(--ink)", opacity=0.5).encode(x=x)
    )
    everything = alt.Chart(alt.InlineData(values=rows)).encode(y=y, color=colour, tooltip=tooltip)
    spans = alt.Chart(alt.InlineData(values=[row for row in rows if "low" in row])).encode(
        y=y, color=colour, tooltip=tooltip
    )
    intervals = spans.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q")
    dots = everything.mark_point(size=60, opacity=1, strokeWidth=1.6).encode(
        x=x,
        fill=alt.Fill(
            "filled:N",
            scale=alt.Scale(domain=[*_COLOURS, "hollow"], range=[*_COLOURS.values(), "var(--paper)"]),
            legend=None,
        ),
    )
    return finished(alt.layer(zero, intervals, dots), _ROW * len(rows))


def effects_alt(pair: PairOfArms) -> str:
    """The same in words."""
    differences = "; ".join(
        f"{label} {text}{f' ({interval})' if interval else ''}, {pair.metrics[metric].significance.value}"
        for metric, label in _drawn(pair)
        for text, interval in (with_sign(pair.metrics[metric], METRIC[metric].unit),)
    )
    return clean(
        f"Differences of {clean(pair.second.name, 40)} from {clean(pair.first.name, 40)}. {differences}.",
        1600,
    )


def _drawn(pair: PairOfArms) -> list[tuple[str, str]]:
    """Metrics that have a place in the chart, and what they are called there."""
    return [
        (metric, f"{_SHORT.get(title, title.lower())}: {label}")
        for title, metrics in ROWS
        for metric, label in metrics
        if (found := pair.metrics.get(metric))
        and found.relative is not None
        and (found.estimate or found.interval)
    ]


def _values(metric: str, label: str, found: Difference) -> dict[str, Any]:
    relative = found.relative or 0.0
    text, interval = with_sign(found, METRIC[metric].unit)
    # In percent of the first arm's mean; the sign of a difference of nothing is no matter.
    scale = 100 * abs(relative / found.estimate) if found.estimate else 0.0
    direction = _direction(metric, found)
    ends: dict[str, float] = {}
    if found.interval and scale:
        ends = {"low": round(scale * found.interval.low, 4), "high": round(scale * found.interval.high, 4)}
    return {
        "metric": label,
        "at": round(100 * relative, 4),
        **ends,
        "direction": direction,
        "filled": direction if found.significance is Significance.SIGNIFICANT else "hollow",
        "text": f"{text} ({relative:+.1%})",
        "interval": interval or "too few boots",
        "significance": found.significance.value,
    }


def _direction(metric: str, found: Difference) -> str:
    if found.significance is not Significance.SIGNIFICANT:
        return NOT_SIGNIFICANT
    better = METRIC[metric].better
    if not better:
        return CHANGED
    return BETTER if (found.estimate > 0) == (better == "higher") else WORSE


def legend(pairs: Sequence[PairOfArms]) -> list[tuple[str, str]]:
    """(css class, words) of the colours that these charts have."""
    seen = {_direction(metric, pair.metrics[metric]) for pair in pairs for metric, _ in _drawn(pair)}
    return [(name.replace(" ", "-"), name) for name in _COLOURS if name in seen]

"""The page of `orchestrator model overcommit`: how many guests fit, who is killed, and what it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.model.cost import CostTable, Interval, Unit
from orchestrator.model.overcommit import Answer, GuestClass, Question
from orchestrator.report.charts import ARM_COLOURS, PANEL_HEIGHT, bytes_axis, finished, tick, time_axis
from orchestrator.report.frame import fill
from orchestrator.report.text import clean, seconds, size
from orchestrator.scenario.overcommit import OvercommitText
from orchestrator.store.atomic import replace_text

_BAR = 24
ASSUMPTIONS = """\
Guests come at even intervals, in an order drawn by lot; each phase begins up to a quarter of its length late.
Memory that a guest no longer uses is the host's again at once.
A guest's own last-level tables serve as many used pages as the file says.
When use falls, pages stay or go independently; a table in which none is left is empty.
Second-level tables and QEMU's own are one each for 2 MiB that backs the guest. Without a policy that frees \
empty ones they stay as they were at the peak.
For each huge page the guest and QEMU have one deposited table each, which nothing can take. KVM has none.
Reclaim under pressure takes no more than it must, and leaves a tenth of the tables that it may take.
When that does not do, the guest that uses most is killed, and does not come back.
Added latency is that of touches of tables, at the moment when fewest were left; not that of a whole request.
""".splitlines()


@dataclass(frozen=True)
class Row:
    """One line of the table, as words."""

    name: str
    fit: str
    killed: str
    tables: str
    kept: str
    mean: str
    p50: str
    p99: str


def name_of(answer: Answer) -> str:
    """`lru, swap`; without the action where the policy takes nothing under pressure."""
    return f"{answer.policy}, {answer.action}" if answer.evicts else answer.policy


def rows(answers: Sequence[Answer]) -> list[Row]:
    """The table's lines, in the order of the answers."""
    return [
        Row(
            name_of(one),
            counted(one.fit),
            counted(one.killed),
            ranged(one.table_bytes_peak, size),
            ranged(one.tables_kept_least, lambda share: f"{share:.0%}"),
            ranged(one.added.mean, seconds),
            ranged(one.added.p50, seconds),
            ranged(one.added.p99, seconds),
        )
        for one in answers
    ]


def counted(value: Interval) -> str:
    """Whole things: `29 (28-30)`. A median between two counts is the smaller one."""
    typical = int(value.typical)
    exact = value.low == value.high
    return f"{typical}" if exact else f"{typical} ({value.low:.0f}-{value.high:.0f})"


def ranged(value: Interval, write: Callable[[float], str]) -> str:
    """A value and its range, unless it is without doubt."""
    if value.low == value.high:
        return write(value.typical) if value.typical else "0"
    return f"{write(value.typical)} ({write(value.low)} to {write(value.high)})"


def sentences(answers: Sequence[Answer], came: int) -> Iterator[str]:
    """What it comes to, in words."""
    first = answers[0]
    yield (
        f"With policy {name_of(first)}, {counted(first.fit)} of {came} guests come before one is killed, "
        f"and {counted(first.killed)} are killed when all come."
    )
    others = answers[1:]
    if not others:
        return
    best = max(others, key=lambda one: (one.fit.typical, -one.killed.typical, -one.added.p99.typical))
    surely = best.fit.low > first.fit.high or best.killed.high < first.killed.low
    if best.fit.typical <= first.fit.typical and best.killed.typical >= first.killed.typical:
        yield "So no policy here makes room for another guest, or spares one."
        return
    yield (
        f"So {name_of(best)} does best: {counted(best.fit)} come, {counted(best.killed)} are killed, and a "
        f"touch of a table takes {ranged(best.added.mean, seconds)} longer, in the slowest hundredth "
        f"{ranged(best.added.p99, seconds)}."
    )
    if not surely:
        yield "The ranges overlap: some of these runs say so, others do not."


def write_page(path: Path, asked: OvercommitText, answers: Sequence[Answer], costs: CostTable) -> None:
    """Write the page; it opens without a network, and needs no other file."""
    question = asked.question
    specs: dict[str, Any] = {"chart-guests": _guests_spec(answers)}
    if any(one.added.p99.high for one in answers):
        specs["chart-latency"] = _latency_spec(answers)
    courses = []
    for number, one in enumerate(answers):
        place = f"chart-course-{number}"
        specs[place] = _course_spec(question, one)
        alt = (
            f"Memory of the host over time with {name_of(one)}: {one.course.came} guests came, "
            f"{one.course.killed} were killed; tables took at the most {size(one.course.table_bytes.max())}."
        )
        courses.append(
            {
                "id": place,
                "title": name_of(one),
                "colour": number % ARM_COLOURS,
                "alt": clean(alt, 400),
                "note": "",
            }
        )
    came = sum(one.at_most for one in question.guests)
    text = fill(
        "overcommit.html.j2",
        title=clean(f"{asked.name}: overcommit"),
        name=clean(asked.name),
        description=clean(asked.description, 1000),
        answer=list(sentences(answers, came)),
        rows=rows(answers),
        guests_alt=clean(
            ". ".join(f"{row.name}: {row.fit} fit, {row.killed} killed" for row in rows(answers)), 900
        ),
        latency_alt=clean(". ".join(f"{row.name}: p99 {row.p99}" for row in rows(answers)), 900),
        courses=courses,
        classes=[_class_words(one) for one in question.guests],
        host=_host_words(question),
        assumptions=ASSUMPTIONS,
        costs=[
            (cost.name, clean(cost.what, 200), cost_words(cost.unit, cost.value), clean(cost.source, 400))
            for cost in costs.costs.values()
        ],
        specs=specs,
    )
    replace_text(path, text)


def cost_words(unit: Unit, value: Interval) -> str:
    """A cost with its range, in its unit."""
    return ranged(value, seconds if unit is Unit.SECONDS else lambda number: f"{number:.3g}")


def _host_words(question: Question) -> str:
    host = question.host
    parts = [f"{size(host.memory_bytes)} of memory, {size(host.reserved_bytes)} of it reserved"]
    parts += [f"{size(host.swap_bytes)} of swap for tables"] if host.swap_bytes else []
    parts += [f"{size(host.other_node_bytes)} on another node for tables"] if host.other_node_bytes else []
    return clean(", ".join(parts), 300)


def _class_words(guest: GuestClass) -> tuple[str, str]:
    used = ", ".join(f"{phase.used:.0%} after {seconds(phase.seconds)}" for phase in guest.phases[:12])
    return clean(guest.name), clean(
        f"up to {guest.at_most} of {size(guest.size_bytes)}, {guest.entries_per_table:g} used pages to a "
        f"table, {guest.huge_share:.0%} in huge pages; used: {used}",
        600,
    )


def _guests_spec(answers: Sequence[Answer]) -> Any:
    import altair as alt

    data = alt.InlineData(
        values=[
            {
                "name": name_of(one),
                "what": what,
                "low": value.low,
                "at": int(value.typical),
                "high": value.high,
                "text": counted(value),
            }
            for one in answers
            for what, value in (("fit", one.fit), ("killed", one.killed))
        ]
    )
    names = [name_of(one) for one in answers]
    colours = alt.Scale(domain=["fit", "killed"], range=["var(--given-back)", "var(--tables)"])
    base = alt.Chart(data).encode(
        y=alt.Y("name:N", sort=names, title=None, axis=alt.Axis(domain=False, labelLimit=190)),
        yOffset=alt.YOffset("what:N", sort=["fit", "killed"]),
        color=alt.Color("what:N", scale=colours, legend=None),
        tooltip=[alt.Tooltip("name:N", title="policy"), "what:N", alt.Tooltip("text:N", title="guests")],
    )
    x = alt.X("low:Q", title=None, axis=alt.Axis(tickCount=6, format=",~r"))
    ranges = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x="at:Q")
    words = base.mark_text(align="left", dx=8, fontSize=10.5).encode(
        x="high:Q", text="text:N", color=alt.value("var(--ink)")
    )
    return finished(alt.layer(ranges, points, words), 2 * _BAR * len(answers))


def _latency_spec(answers: Sequence[Answer]) -> Any:
    import altair as alt

    shown = [one for one in answers if one.added.p99.high > 0]
    data = alt.InlineData(
        values=[
            {
                "name": name_of(one),
                "what": what,
                "low": max(value.low, 1e-9) * 1e6,
                "at": max(value.typical, 1e-9) * 1e6,
                "high": value.high * 1e6,
                "text": ranged(value, seconds),
            }
            for one in shown
            for what, value in (("mean", one.added.mean), ("p99", one.added.p99))
            if value.high > 0
        ]
    )
    base = alt.Chart(data).encode(
        y=alt.Y(
            "name:N",
            sort=[name_of(one) for one in shown],
            title=None,
            axis=alt.Axis(domain=False, labelLimit=190),
        ),
        yOffset=alt.YOffset("what:N", sort=["mean", "p99"]),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=["mean", "p99"], range=["var(--arm0)", "var(--arm1)"]),
            legend=None,
        ),
        tooltip=[alt.Tooltip("name:N", title="policy"), "what:N", alt.Tooltip("text:N", title="added")],
    )
    x = alt.X(
        "low:Q",
        title="microseconds added to a touch of a table",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(tickCount=6, format="~g"),
    )
    ranges = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x="at:Q")
    return finished(alt.layer(ranges, points), 2 * _BAR * len(shown))


def _course_spec(question: Question, answer: Answer) -> Any:
    import altair as alt

    course = answer.course
    span = time_axis(float(course.seconds[-1]) if len(course.seconds) else 1.0)
    room = question.host.memory_bytes - question.host.reserved_bytes
    axis = bytes_axis(float(max(room, (course.data_bytes + course.table_bytes).max())))
    step = max(1, len(course.seconds) // 240)
    values = [
        {
            "t": round(float(course.seconds[at]) / span.factor, 4),
            "what": what,
            "v": round(float(series[at]) / axis.factor, 5),
            "text": size(float(series[at])),
            "alive": int(course.alive[at]),
        }
        for at in range(0, len(course.seconds), step)
        for what, series in (("data", course.data_bytes), ("tables", course.table_bytes))
    ]
    colours = alt.Scale(domain=["data", "tables"], range=["var(--b-movable)", "var(--tables)"])
    areas = (
        alt.Chart(alt.InlineData(values=values))
        .mark_area()
        .encode(
            x=alt.X(
                "t:Q", title=None, axis=alt.Axis(grid=False, tickCount=6, labelExpr=tick(span), format=",~r")
            ),
            y=alt.Y(
                "v:Q",
                title=None,
                stack="zero",
                axis=alt.Axis(domain=False, tickCount=4, labelExpr=tick(axis), format=",~r"),
            ),
            color=alt.Color("what:N", scale=colours, legend=None),
            order=alt.Order("what:O"),
            tooltip=["what:N", alt.Tooltip("text:N", title="bytes"), alt.Tooltip("alive:Q", title="guests")],
        )
    )
    line = (
        alt.Chart(alt.InlineData(values=[{"v": room / axis.factor}]))
        .mark_rule(color="var(--ink)", strokeDash=[5, 3])
        .encode(y="v:Q")
    )
    return finished(alt.layer(areas, line), PANEL_HEIGHT)

"""The page of `orchestrator model overcommit`: how many guests fit, who is killed, and what it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.analysis.scale import bytes_axis, time_axis
from orchestrator.analysis.text import clean, seconds, size
from orchestrator.model.cost import CostRange, CostTable, CostUnit
from orchestrator.model.overcommit import GuestClass, OvercommitResult, OvercommitSetting
from orchestrator.report.charts import ARM_COLOURS, PANEL_HEIGHT, finished, tick
from orchestrator.report.frame import fill, scripts
from orchestrator.scenario.overcommit import OvercommitText
from orchestrator.store.atomic import replace_text

_BAR = 24
ASSUMPTIONS = """\
Guests come at even intervals, in an order drawn by lot; each phase begins up to a quarter of its length late.
Memory that a guest no longer uses is the host's again at once.
A guest's own last-level tables serve as many used pages as the file says.
When use falls, pages stay or go independently; a table in which none is left is empty.
Second-level tables and QEMU's own are one each for 2 MiB that backs the guest in 4 KiB pages. Without a \
policy that frees empty ones they stay as they were at the peak.
A huge page has a table deposited for its split in the guest and in QEMU, which is freed with it.
Of each guest as many tables are played as of every other, and touched as often as its Zipf law says.
Reclaim under pressure takes what the policy names, no more than it must, and moves at most nine tenths of \
the tables with data. Without room for more, what it names of the rest is freed where it maps no page of data.
When that does not do, the guest that uses most is killed, and does not come back.
Added latency is that of touches of tables, in the twentieth of the time when fewest tables were left; not \
that of a whole request, and not what freeing tables without pressure takes.
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


def name_of(answer: OvercommitResult) -> str:
    """`lru, swap`; without the action where the policy takes no table in use."""
    return f"{answer.policy}, {answer.action}" if answer.evicts_in_use else answer.policy


def rows(answers: Sequence[OvercommitResult]) -> list[Row]:
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


def counted(value: CostRange) -> str:
    """Whole things: `29 (28-30)`. The median of an even number of runs may lie between: `0.5 (0-1)`."""
    exact = value.low == value.high
    return f"{value.typical:g}" if exact else f"{value.typical:g} ({value.low:.0f}-{value.high:.0f})"


def ranged(value: CostRange, write: Callable[[float], str]) -> str:
    """A value and its range, unless it is without doubt."""
    if value.low == value.high:
        return write(value.typical) if value.typical else "0"
    return f"{write(value.typical)} ({write(value.low)} to {write(value.high)})"


def sentences(answers: Sequence[OvercommitResult]) -> Iterator[str]:
    """What it comes to, in words."""
    first = answers[0]
    yield (
        f"With policy {name_of(first)}, {counted(first.fit)} of {first.course.came} guests fit before the "
        f"first OOM kill; {counted(first.killed)} are killed when all start."
    )
    others = answers[1:]
    if not others:
        return
    if all(
        one.fit.typical <= first.fit.typical and one.killed.typical >= first.killed.typical for one in others
    ):
        yield "So no policy here fits another guest or avoids an OOM kill."
        return
    best = _undominated(answers)
    if len(best) == 1:
        yield (
            f"So {_names(best[0])} does best, without a trade-off: no other has fewer kills, more guests "
            "that fit, or a lower p99."
        )
    else:
        yield "So which does best depends on what counts: kills, guests that fit, or latency."
    yield from (_described(group) for group in best)
    close = [
        f"{_names(one)} and {_names(two)}"
        for one, two in pairwise(best)
        if _overlap(one[0].killed, two[0].killed) and _overlap(one[0].fit, two[0].fit)
    ]
    if close:
        yield f"Ranges of kills and of guests that fit overlap between {', and between '.join(close)}."


def _undominated(answers: Sequence[OvercommitResult]) -> list[list[OvercommitResult]]:
    """Those that no other is as good as in all and better than in something, by latency; equal ones together.

    Compared are kills (the median and the most of them), guests that fit, and p99 to two digits.
    """
    groups: dict[tuple[float, ...], list[OvercommitResult]] = {}
    for one in answers:
        p99 = float(f"{one.added.p99.typical:.1e}")
        key = (p99, one.killed.typical, one.killed.high, -one.fit.typical)
        groups.setdefault(key, []).append(one)
    return [
        group
        for key, group in sorted(groups.items(), key=lambda item: item[0])
        if not any(
            other != key and all(theirs <= mine for theirs, mine in zip(other, key, strict=True))
            for other in groups
        )
    ]


def _names(group: Sequence[OvercommitResult]) -> str:
    return " or ".join(name_of(one) for one in group)


def _described(group: Sequence[OvercommitResult]) -> str:
    one = group[0]
    added = f"{ranged(one.added.p99, seconds)} longer at p99" if one.added.p99.high else "no longer"
    return (
        f"With {_names(group)}, {counted(one.fit)} fit, {counted(one.killed)} are killed, and a touch of a "
        f"table takes {added}."
    )


def _overlap(one: CostRange, two: CostRange) -> bool:
    return one.low <= two.high and two.low <= one.high


def is_page(path: Path) -> bool:
    """Whether a file is a page that `write_page` wrote."""
    with path.open("rb") as file:
        return b": overcommit</title>" in file.read(1 << 16)


def write_page(
    path: Path, asked: OvercommitText, answers: Sequence[OvercommitResult], costs: CostTable
) -> None:
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
            f"{one.course.killed} were killed; tables took at most {size(one.course.table_bytes.max())}."
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
    text = fill(
        "overcommit.html.j2",
        scripts(),
        title=clean(f"{asked.name}: overcommit"),
        name=clean(asked.name),
        description=clean(asked.description, 1000),
        answer=list(sentences(answers)),
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
            (
                cost.name,
                clean(cost.what, 200),
                cost_words(cost.unit, cost.value),
                clean(cost.source, 600),
                clean(instruction_words(costs, cost.name), 400),
            )
            for cost in costs.costs.values()
        ],
        specs=specs,
    )
    replace_text(path, text)


def instruction_words(costs: CostTable, name: str) -> str:
    """The instructions that were counted of a cost, or why none were."""
    found = costs.instructions.get(name)
    if found is None:
        return f"not measured: {costs.not_counted(name)}"
    return (
        f"{found.typical:,.0f} ({found.low:,.0f} to {found.high:,.0f}) over {found.boots} boots: {found.of}"
    )


def cost_words(unit: CostUnit, value: CostRange) -> str:
    """A cost with its range, in its unit."""
    return ranged(value, seconds if unit is CostUnit.SECONDS else lambda number: f"{number:.3g}")


def _host_words(question: OvercommitSetting) -> str:
    host = question.host
    parts = [f"{size(host.memory_bytes)} of memory, {size(host.reserved_bytes)} of it reserved"]
    parts += [f"{size(host.swap_bytes)} of swap for tables"] if host.swap_bytes else []
    parts += [f"{size(host.other_node_bytes)} on another node for tables"] if host.other_node_bytes else []
    return clean(", ".join(parts), 300)


def _class_words(guest: GuestClass) -> tuple[str, str]:
    used = ", ".join(f"{phase.used:.0%} after {seconds(phase.seconds)}" for phase in guest.phases[:12])
    return clean(guest.name), clean(
        f"up to {guest.at_most} of {size(guest.size_bytes)}, {guest.entries_per_table:g} used pages to a "
        f"table, {guest.huge_share:.0%} in huge pages, {guest.zero_share:.0%} of tables with the zero page "
        f"only, {guest.tables_per_upper:g} tables to a PMD table; used: {used}",
        600,
    )


def _guests_spec(answers: Sequence[OvercommitResult]) -> Any:
    import altair as alt

    data = alt.InlineData(
        values=[
            {
                "name": name_of(one),
                "what": what,
                "low": value.low,
                "at": value.typical,
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


def _latency_spec(answers: Sequence[OvercommitResult]) -> Any:
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
        title="microseconds added per touch of a table",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(tickCount=6, format="~g"),
    )
    ranges = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x="at:Q")
    return finished(alt.layer(ranges, points), 2 * _BAR * len(shown))


def _course_spec(question: OvercommitSetting, answer: OvercommitResult) -> Any:
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

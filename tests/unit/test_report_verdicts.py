"""What the page says of expectations, differences and trials left out, and that it is what `verdict` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from lxml import html
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.report.page import build_report
from orchestrator.report.sections.differences import effects_spec
from orchestrator.stats import Difference, Significance
from orchestrator.stats.interval import Interval
from orchestrator.store import open_run
from orchestrator.verdict import ArmFigures, PairOfArms, compare_arms, figures_of

MIB = 1 << 20
KEPT, GOT, END = "unplug_shortfall_bytes", "unplug_achieved_bytes", "guest_page_table_bytes_end"
EXPECT: tuple[dict[str, object], ...] = (
    {"metric": KEPT, "arm": "6.12", "at_most": 500.0 * MIB},
    {"metric": END, "arm": "7.3-pt-reclaim", "versus": "6.12", "at_most": -100.0 * MIB},
    {"metric": KEPT, "arm": "gone", "at_most": 1.0 * MIB},
)


def page_of(directory: Path) -> html.HtmlElement:
    summary.refresh(directory)
    return html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, html.HtmlElement]:
    """Six trials of each arm, the last of one of them lost."""
    directory = write_run(
        tmp_path_factory.mktemp("many"), repeats=7, jitter=9, expect=EXPECT, snapshots=False
    )
    path = directory / "trials" / "6.12-07" / "events.jsonl"
    path.write_text(path.read_text().replace('"outcome": "completed"', '"outcome": "failed"'))
    return directory, page_of(directory)


def text_of(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def rows(section: html.HtmlElement) -> list[list[str]]:
    return [[text_of(cell) for cell in row] for row in section.xpath(".//tbody/tr")]


def test_one_trial_of_each_gets_a_warning_and_no_interval(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, snapshots=False))
    first = text_of(page.get_element_by_id("conclusions"))
    assert "1 trial of 1 boot of each arm: 1 boot to compare, too few for intervals" in first
    assert ", significant" not in first
    assert "95 %" not in first
    (row,) = rows(page.get_element_by_id("conclusions"))
    assert row[:2] == ["7.3-pt-reclaim", "+4 MiB"]
    assert {row[-1] for row in rows(page.get_element_by_id("differences"))} == {"too few boots"}
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    assert "low" not in values(specs["chart-differences-0"])[0]


def values(spec: Mapping[str, object]) -> list[dict[str, object]]:
    """What the dots of a chart are made of."""
    data = spec.get("datasets", {})
    found = [rows for rows in data.values() if rows and "metric" in rows[0]] if isinstance(data, dict) else []
    layers = spec.get("layer", ())
    assert isinstance(layers, list)
    found += [
        layer["data"]["values"]
        for layer in layers
        if "metric" in (layer.get("data", {}).get("values") or [{}])[0]
    ]
    return max(found, key=len)


@pytest.mark.slow
def test_the_first_screen_has_the_intervals_that_compare_has(many: tuple[Path, html.HtmlElement]) -> None:
    directory, page = many
    run = open_run(directory)
    (pair,) = compare_arms(figures_of(run, summary.load(run))).pairs
    assert pair.metrics[END].significance is Significance.SIGNIFICANT
    assert pair.metrics[GOT].significance is Significance.NOT_SIGNIFICANT
    (row,) = rows(page.get_element_by_id("conclusions"))
    assert row[1].endswith(", not significant")
    assert row[2].endswith(", significant")
    interval = pair.metrics[END].interval
    assert interval is not None
    assert f"{interval.low / MIB:+.3g} to {interval.high / MIB:+.3g}" in row[2]
    assert "ranges are their 95 % intervals" in text_of(page.get_element_by_id("conclusions"))


def test_the_chart_has_each_interval_in_percent(many: tuple[Path, html.HtmlElement]) -> None:
    directory, page = many
    run = open_run(directory)
    (pair,) = compare_arms(figures_of(run, summary.load(run))).pairs
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    drawn = {str(row["metric"]): row for row in values(specs["chart-differences-0"])}
    found, base = pair.metrics[KEPT], sum(pair.first.values(KEPT)[:6]) / 6
    assert found.interval is not None
    assert drawn["unplug: shortfall"]["low"] == pytest.approx(100 * found.interval.low / base, abs=1e-3)
    assert drawn["unplug: shortfall"]["high"] == pytest.approx(100 * found.interval.high / base, abs=1e-3)
    assert drawn["unplug: shortfall"]["filled"] == "hollow"
    assert drawn["tables: at the end"]["direction"] == drawn["tables: at the end"]["filled"] == "better"
    assert "unplug: settled after" not in drawn, "it was the same in all trials"


def test_expectations_are_met_or_say_why_not(many: tuple[Path, html.HtmlElement]) -> None:
    _, page = many
    met, missed, unknown = rows(page.get_element_by_id("expectations"))
    assert met[0] == f"{KEPT} of 6.12 at most 500 MiB"
    assert [line[1] for line in (met, missed, unknown)] == ["met", "not met", "not met"]
    assert missed[2].startswith("-12.")
    assert unknown[2] == "no trial of gone that counts has a reading"
    first = text_of(page.get_element_by_id("conclusions"))
    assert "2 of 3 expectations not met" in first
    assert "(and 1 more, see Expectations)" in first


def test_a_lost_trial_is_named_and_counts_for_nothing(many: tuple[Path, html.HtmlElement]) -> None:
    _, page = many
    section = text_of(page.get_element_by_id("excluded"))
    assert "6.12-07" in section
    assert "it did not complete: failed" in section
    assert "1 of 14 trials excluded" in text_of(page.get_element_by_id("conclusions"))
    assert "6 pairs of trials" in text_of(page.get_element_by_id("differences"))


def test_expectations_that_cannot_be_read_do_not_take_the_page_away(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, snapshots=False, expect=({"metric": "no such"},)))
    first = text_of(page.get_element_by_id("conclusions"))
    assert "Expectations cannot be judged" in first
    assert "ended with" in first


def pair_with(**metrics: Difference) -> PairOfArms:
    arms = [ArmFigures(name, "", "", {}, ()) for name in ("a", "b")]
    return PairOfArms(arms[0], arms[1], "none", metrics, {})


def different(estimate: float, relative: float | None, low: float, high: float) -> Difference:
    return Difference(6, True, estimate, relative, Significance.SIGNIFICANT, Interval(low, high))


def test_better_and_worse_follow_the_metric() -> None:
    pair = pair_with(
        **{
            KEPT: different(10, 0.1, 5, 15),
            GOT: different(10, 0.1, 5, 15),
            "second_level_needed_bytes": different(10, 0.1, 5, 15),
        }
    )
    spec = effects_spec(pair)
    assert spec is not None
    said = {row["metric"]: row["direction"] for row in values(spec)}
    assert said == {
        "unplug: shortfall": "worse",
        "unplug: unplugged": "better",
        "host: second-level tables needed": "changed",
    }


def test_what_has_nothing_to_relate_to_is_not_drawn_and_what_is_far_stands_at_the_edge() -> None:
    assert effects_spec(pair_with(**{KEPT: different(10, None, 5, 15)})) is None
    spec = effects_spec(pair_with(**{KEPT: different(-90, -9.0, -95, -85), GOT: different(1, 0.01, 0, 2)}))
    assert spec is not None
    kept = next(row for row in values(spec) if row["metric"] == "unplug: shortfall")
    assert (kept["low"], kept["at"], kept["high"]) == (-200.0, -200.0, -200.0)
    assert "-900.0%" in str(kept["text"])

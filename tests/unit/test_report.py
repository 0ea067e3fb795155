"""The report: the same from the same files, whole by itself, and deaf to what guests call themselves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from lxml import html
from synthetic_run import ARMS, evil_run, write_run

from orchestrator import summary
from orchestrator.analysis.arms import steps_of
from orchestrator.analysis.run import RunAnalysis
from orchestrator.errors import BadInputError
from orchestrator.model.policies import OverSnapshot
from orchestrator.records.events import StepBegin, read_event
from orchestrator.report.page import build_report
from orchestrator.report.sections.blockmap import KINDS


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_run(tmp_path_factory.mktemp("results"))
    summary.refresh(directory)
    build_report(RunAnalysis.open(directory))
    return directory


@pytest.fixture(scope="module")
def page(run_dir: Path) -> html.HtmlElement:
    return html.document_fromstring((run_dir / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_same_folder_gives_the_same_page(run_dir: Path, tmp_path: Path) -> None:
    before = (run_dir / "report.html").read_bytes()
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    (copy / "report.html").unlink()
    assert build_report(RunAnalysis.open(copy)).read_bytes() == before


def test_it_changes_with_what_was_measured(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    path = copy / "summary.csv"
    path.write_text(path.read_text().replace("partial", "refused"))
    assert build_report(RunAnalysis.open(copy)).read_bytes() != (run_dir / "report.html").read_bytes()


def test_the_page_fetches_nothing(page: html.HtmlElement) -> None:
    for element in page.iter():
        for name, value in element.attrib.items():
            assert name not in {"src", "srcset", "data", "action", "poster"}, (element.tag, name)
            assert name != "href" or value.startswith("#"), "links lead to the page itself"
            assert "://" not in value, (element.tag, name)
    assert "url(" not in "".join(page.xpath("//style/text()"))
    assert "@import" not in "".join(page.xpath("//style/text()"))
    assert "://" not in page.xpath("//script[@id='charts']/text()")[0]


def test_the_page_forbids_what_it_does_not_need(page: html.HtmlElement) -> None:
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    scripts = [script.text for script in page.xpath("//script[not(@type)]")]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts} == allowed
    assert len(allowed) == 2


def test_the_first_thing_said_is_the_answer(page: html.HtmlElement) -> None:
    sections = [section.get("id") for section in page.xpath("//body/section")]
    assert sections[:2] == ["conclusions", "comparison"]
    answer = page.get_element_by_id("conclusions").text_content()
    assert "6.12 ended with 13.21 MiB of guest page tables, 7.3-pt-reclaim with 788 KiB" in answer
    assert "Of the 1.5 GiB requested, unplug took 1.084 GiB (72 %) with 6.12" in answer
    assert "213 blocks are still plugged; 203 of them contain a page-table page, and 199 of these" in answer
    assert (
        "fewer page-table bytes (12.45 MiB) came with only 4 MiB more memory unplugged, by the medians"
        in answer
    )


def test_it_has_every_section_and_says_that_it_is_synthetic(page: html.HtmlElement) -> None:
    ids = [section.get("id") for section in page.xpath("//body/section")]
    assert ids[2:] == [
        "differences",
        "page-tables",
        "virtio-mem",
        "balloon",
        "resize",
        "map",
        "pinning",
        "attribution",
        "policies",
        "tradeoff",
        "model-check",
        "huge-pages",
        "steps",
        "not-measured",
        "provenance",
        "terms",
    ]
    contents = page.xpath("//nav//a")
    assert [link.get("href") for link in contents] == [f"#{name}" for name in ids[1:]]
    headings = [page.get_element_by_id(name).xpath("./h2")[0].text_content() for name in ids[1:]]
    assert [link.text_content() for link in contents] == headings
    gaps = page.get_element_by_id("not-measured").text_content()
    assert "no second level under TCG" in gaps
    assert "guest_process/touch:411/VmPTE" in gaps
    assert "the guest did not answer within 2 s" in gaps


def test_every_figure_says_in_words_what_it_shows(page: html.HtmlElement) -> None:
    figures = page.xpath("//figure//*[@role='img']")
    # Three series, yields, two maps each, one of policies each; one of differences, one of all policies.
    assert len(figures) == 2 * 3 + 2 + 4 + 2 + 2
    words = [figure.get("aria-label") for figure in figures]
    assert all(len(text) > 40 for text in words)
    assert len(set(words)) == len(words)
    assert any("199 page tables as sole blocker" in text for text in words)


def test_charts_have_places_and_readable_axes(page: html.HtmlElement) -> None:
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    assert {*specs} == set(page.xpath("//div[@class='chart']/@id"))
    for spec in specs.values():
        text = json.dumps(spec)
        assert spec["width"] == "container"
        assert ("iB'" in text) or ("' %'" in text)  # ticks carry a binary unit, or are percent
        assert not re.search(r'"v": \d{6,}', text), "no raw bytes"
    # All arms on one scale, else bars and lines of two panels cannot be compared.
    for kind in ("page-tables", "virtio-mem", "resize", "policies"):
        domains = [
            re.findall(r'"domain": \[0(?:\.0)?, [^]]*\]', json.dumps(specs[key]))
            for key in specs
            if kind in key
        ]
        assert len(domains) == 2
        assert domains[0] == domains[1] != []


def test_modelled_figures_are_called_modelled(page: html.HtmlElement) -> None:
    policies = page.get_element_by_id("policies")
    rows = policies.xpath(".//tbody/tr")
    assert len(rows) == 2 * 2 * len(OverSnapshot.names())  # arms, snapshots, policies
    assert all(row.xpath(".//span[@class='origin modelled']") for row in rows)
    assert "modelled" not in page.get_element_by_id("comparison").text_content()
    assert page.get_element_by_id("comparison").xpath(".//span[@class='origin predicted']")


def cells(row: html.HtmlElement) -> list[str]:
    return [" ".join(cell.text_content().split()) for cell in row.xpath("./td")]


def named_rows(section: html.HtmlElement) -> dict[str, list[str]]:
    """Cells of each row by the words of its head."""
    rows = section.xpath(".//tbody/tr[th[@scope='row']]")
    return {" ".join(row.xpath("./th")[0].text_content().split()): cells(row) for row in rows}


def test_holders_are_told_by_class_and_kind_of_table(page: html.HtmlElement) -> None:
    section = page.get_element_by_id("pinning")
    rows = named_rows(section)
    assert rows["all still plugged"] == ["213", "", "211", ""]
    assert rows["page tables"] == ["203", "199", "201", "197"]
    assert rows["PMD, valid"] == ["203", "0", "", ""]  # beside the tables that it points at
    assert rows["PTE, empty"] == ["203", "0", "201", "197"]
    assert rows["slab"] == ["14", "10", "14", "10"]
    assert rows["pinned by several classes"] == ["4", "", "4", ""]
    assert rows["movable, no migration target"] == rows["unexplained"] == ["0", "", "0", ""]
    order = list(rows)
    assert order.index("page tables") + 1 == min(order.index(kind) for kind in order if ", " in kind)
    assert order.index("slab") < order.index("free") < order.index("pinned by several classes")
    said = section.xpath(".//p[@class='sentence']")
    more = "no other class frees more."
    assert [line.text_content() for line in said] == [
        f"6.12: Without page tables, 199 of 213 pinned blocks would be free; {more}",
        f"7.3-pt-reclaim: Without page tables, 197 of 211 pinned blocks would be free; {more}",
    ]
    answer = page.get_element_by_id("conclusions").text_content()
    assert "199 of 213 with 6.12 and 197 of 211 with 7.3-pt-reclaim would be free without page" in answer
    assert named_rows(page.get_element_by_id("comparison"))["unexplained"] == ["0", "0"]


def test_the_legend_of_the_map_has_what_is_in_it(page: html.HtmlElement) -> None:
    section = page.get_element_by_id("map")
    legend = section.xpath(".//ul[@class='legend']/li/i/@class")
    drawn = set(section.xpath(".//path/@class"))
    assert legend == [f"swatch {kind.css}" for kind in KINDS if kind.css in drawn]
    assert "swatch b-tables" in legend
    assert "swatch b-network" not in legend


def test_injected_and_found_stand_side_by_side(page: html.HtmlElement) -> None:
    section = page.get_element_by_id("attribution")
    heads = [head.text_content() for head in section.xpath("(.//thead)[1]//th")]
    assert heads[6:] == ["page tables", "slab"]  # what is free keeps no block
    (old, _) = section.xpath("(.//tbody)[1]/tr")
    assert "6.12-01" in old.xpath("./th")[0].text_content()
    assert cells(old) == [
        *("sparse-touch", "page tables", "213", "203", "95.3 %", "0", "0 %"),
        *("\N{BLACK DIAMOND} 203 (203)", "14 (10)"),
    ]
    # In print and to those who see no colour, the sign says which was expected.
    assert [mark.text_content() for mark in old.xpath(".//b[@class='expected']")] == ["\N{BLACK DIAMOND} 203"]
    (tables,) = section.xpath("(.//tbody)[2]/tr")
    # Both trials injected the same, so that precision would be 100 % whatever is found.
    assert tables.xpath("./th")[0].text_content() == "page tables"
    assert cells(tables) == ["2", "95.3 %", "n/a", "95.3 %", "n/a"]
    (reason,) = section.xpath("./p[@class='note']")
    assert "page tables: no precision, since every trial injected it" in reason.text_content()


def test_yield_curves_are_of_what_took_memory(page: html.HtmlElement) -> None:
    section = page.get_element_by_id("resize")
    notes = [note.text_content() for note in section.xpath(".//figcaption/span")]
    assert notes == ["5 inflate by 128 MiB \N{MIDDLE DOT} 6 unplug to 0 B"] * 2
    words = section.xpath(".//*[@role='img']/@aria-label")
    assert (
        "6 unplug to 0 B: 1.088 GiB of 1.5 GiB requested (73 %), "
        "acknowledged after 300 ms, settled after 24 s" in words[0]
    )
    spec = json.loads(page.xpath("//script[@id='charts']/text()")[0])["chart-resize-0"]
    layers = {
        layer["mark"]["type"] + str(layer["mark"].get("strokeDash", "")): layer["data"]["values"]
        if "values" in layer["data"]
        else spec["datasets"][layer["data"]["name"]]
        for layer in spec["layer"]
        if layer["mark"].get("opacity") != 0
    }
    assert [round(line["v"], 3) for line in layers["rule[5, 3]"]] == [1.5, 0.125]
    assert [(mark["t"], mark["shape"]) for mark in layers["point"]] == [
        (0.2, "circle"),
        (3.0, "diamond"),
        (0.3, "circle"),
        (24.0, "diamond"),
    ]
    unplug = [(point["t"], point["v"]) for point in layers["line"] if point["step"].startswith("6 ")]
    assert unplug[:3] == [(0.0, 0.0), (0.3, 0.375), (10.0, 0.75)]
    assert unplug[-1][0] == 54.0
    line = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "line")
    assert line["mark"]["interpolate"] == "step-after"


def without(directory: Path, *fields: str) -> None:
    """Take fields out of the run's events, as an older version would have written them."""
    for path in directory.glob("trials/*/events.jsonl"):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        for event in events:
            for field in fields:
                event.pop(field, None)
                event.get("values", {}).pop(field, None)
        path.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_run_of_an_older_version_has_no_such_sections(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    without(directory, "curve", "expects", "later_bytes")
    summary.refresh(directory)
    page = html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))
    sections = {section.get("id") for section in page.xpath("//body/section")}
    assert not sections & {"resize", "attribution"}
    assert {"pinning", "huge-pages", "steps"} <= sections
    assert "after settled" not in [
        head.text_content() for head in page.get_element_by_id("steps").xpath(".//th")
    ]
    # And one that was kept before there was any blame.
    for path in (*directory.glob("trials"), directory / "snapshots.csv", directory / "blame.csv"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))
    sections = {section.get("id") for section in page.xpath("//body/section")}
    assert not sections & {"resize", "attribution", "pinning", "huge-pages"}
    assert "policies" in sections
    assert "single class" not in page.get_element_by_id("conclusions").text_content()


def test_a_step_without_an_end_has_no_curve_and_a_torn_one_is_bounded() -> None:
    begin = StepBegin(t_ns=10**9, step=1, action="unplug")
    (step,) = steps_of([begin])
    assert (step.curve, step.ended, step.later_bytes) == ((), None, None)
    curve = [[3, 2], [0, 0], [1, float("inf")], [False, 1], ["1", 1], None, [1, 1, 1], [2, -1]]
    end = {"t_ns": 3 * 10**9, "event": "step.end", "step": 1}
    (step,) = steps_of([begin, read_event({**end, "curve": curve})])
    assert step.curve == ((0.0, 0.0), (2.0, -1.0), (3.0, 2.0))
    assert step.ended == 3.0
    (step,) = steps_of([begin, read_event({**end, "curve": [[t, t] for t in range(20_000)]})])
    assert len(step.curve) == 10_000


def test_what_came_later_has_its_column(page: html.HtmlElement) -> None:
    steps = page.get_element_by_id("steps")
    assert "after settled" in [head.text_content() for head in steps.xpath(".//thead//th")]
    rows = named_rows(steps)
    assert rows["unplug to 0 B"][-1] == "4 MiB"
    assert rows["plug 1.5 GiB"][-1] == ""


def test_huge_pages_by_snapshot_and_policy(page: html.HtmlElement) -> None:
    section = page.get_element_by_id("huge-pages")
    supply, counters = section.xpath(".//table")
    heads = [head.text_content() for head in supply.xpath(".//thead/tr[2]/th")]
    assert heads[:6] == ["arm", "snapshot", "ranges", "free", "freeable", "tables deposited"]
    assert sorted(["none", *heads[6:]]) == OverSnapshot.names()
    rows = supply.xpath(".//tbody/tr")
    assert [row.xpath("./th")[0].text_content() for row in rows] == ["loaded", "after-unplug"] * 2
    assert [cells(row)[4] for row in rows] == ["0", "0", "not measured", "not measured"]
    old, new = (
        dict(zip(heads[4:5] + heads[6:], map(int, cells(row)[3:4] + cells(row)[5:]), strict=True))
        for row in (rows[0], rows[2])
    )
    # Last-level tables gone, those above them stay; where there is none above, their ranges are free.
    assert old["empty"] == old["freeable"] == old["empty_all_levels"] - ARMS[0].kept_tables_only
    assert new["empty"] == new["freeable"] + ARMS[1].kept_tables_only
    assert "modelled" in supply.xpath(".//thead/tr[1]")[0].text_content()
    assert named_rows(counters)["6.12-01"] == ["119", "1,190", "0", *["not measured"] * 3]
    why = counters.xpath(".//tbody/tr[1]//span/@title")
    assert why == [
        "guest_vmstat/compact_fail was read only once",
        "guest_vmstat/compact_stall was never read",
        "guest_pagetypeinfo/free_huge_ranges was never read",
    ]


def test_policies_are_explained(page: html.HtmlElement) -> None:
    policies = page.get_element_by_id("policies")
    terms = {
        name.text: what.text for name, what in zip(policies.iter("dt"), policies.iter("dd"), strict=True)
    }
    assert set(terms) == set(OverSnapshot.names())
    assert terms["empty"] == "Frees last-level tables without any entry."
    heads = [head.text_content() for head in policies.xpath(".//thead//th")]
    ranges = heads.index("2 MiB ranges")
    loaded = policies.xpath(".//tbody/tr")[0].xpath("./*")
    huge = page.get_element_by_id("huge-pages").xpath(".//tbody/tr")[0].xpath("./*")
    assert loaded[ranges].text_content() == huge[4].text_content()  # the policy `none`


def test_what_guests_say_stays_text(tmp_path: Path) -> None:
    directory = evil_run(tmp_path)
    summary.refresh(directory)
    text = build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8")
    page = html.document_fromstring(text)
    assert len(page.xpath("//script")) == 3
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "49&" not in text
    shown = page.get_element_by_id("failed-trials").text_content()
    assert "</script><script>alert(1)</script>" in shown
    assert len(text) - len("".join(page.xpath("//script/text()"))) < 100_000, "bounded"
    assert "alert(1)" in page.get_element_by_id("pinning").text_content()
    assert "alert(1)" in page.get_element_by_id("attribution").text_content()
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    assert any("</script>" in json.dumps(spec) for spec in specs.values()), "the name is in the data, inert"


def test_a_run_without_any_trial_has_a_page(tmp_path: Path) -> None:
    run = RunAnalysis.open(write_run(tmp_path, trials=0, finish="failed"))
    page = html.document_fromstring(build_report(run).read_text())
    assert "No trial has results yet" in page.get_element_by_id("conclusions").text_content()


def test_a_killed_run_has_a_page_that_says_so(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=1, finish=None, snapshots=False)
    meta = json.loads((directory / "meta.json").read_text())
    meta["writer"]["pid"] = (1 << 22) + 1
    (directory / "meta.json").write_text(json.dumps(meta))
    page = html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))
    answer = page.get_element_by_id("conclusions").text_content()
    assert "The run was killed: 1 of 2 trials have ended" in answer


def test_another_version_is_refused(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=0)
    meta = json.loads((directory / "meta.json").read_text()) | {"schema_version": 99}
    (directory / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadInputError, match="99"):
        build_report(RunAnalysis.open(directory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "says"), [("trials_at_once", 2, "in parallel"), ("host", "nested", "host")]
)
def test_seconds_that_mean_nothing_are_called_so(tmp_path: Path, key: str, value: object, says: str) -> None:
    directory = write_run(tmp_path)
    for changed in (False, True):
        if changed:
            path = directory / ("plan.json" if key == "host" else "meta.json")
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        page = html.document_fromstring(build_report(RunAnalysis.open(directory)).read_text(encoding="utf-8"))
        lead = page.get_element_by_id("resize").find("p").text_content()
        assert ("the seconds give the order" in lead) == changed
        assert not changed or says in lead

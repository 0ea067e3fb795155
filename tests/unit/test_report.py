"""The report: the same from the same files, whole by itself, and deaf to what guests call themselves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from lxml import etree, html
from synthetic_run import META, FakeArm, plan_json, write_run

from orchestrator import summary
from orchestrator.errors import BadInputError
from orchestrator.model.policies import POLICIES
from orchestrator.observation import Observation
from orchestrator.report import build_report, write_junit, write_prometheus
from orchestrator.report.blockmap import _path
from orchestrator.report.charts import MAX_POINTS, downsample
from orchestrator.report.text import clean, clean_block, percent, seconds
from orchestrator.store import RunWriter

EVIL = "</script><script>alert(1)</script>\u202e\x1b[2J\"'`{{7*7}}&"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_run(tmp_path_factory.mktemp("results"))
    summary.refresh(directory)
    build_report(directory)
    return directory


@pytest.fixture(scope="module")
def page(run_dir: Path) -> html.HtmlElement:
    return html.document_fromstring((run_dir / "report.html").read_text(encoding="utf-8"))


def evil_run(results: Path) -> Path:
    """A run in which everything that comes from outside tries to be something else."""
    arm = FakeArm(EVIL, EVIL, EVIL, 0, 3, 2)
    plan = json.loads(plan_json((arm,), scenario=EVIL))
    plan["trials"][0]["id"] = "t-01"
    writer = RunWriter.create(results, "evil", json.dumps(plan), {**META, "accel": EVIL, EVIL: EVIL})
    with writer.trial("t-01") as trial:
        trial.event("trial.begin", 0, kernel_release=EVIL)
        trial.event("step.begin", 1, step=EVIL, action=EVIL, describe=EVIL)
        trial.event("step.end", 2, step=EVIL, action=EVIL, outcome=EVIL, values={EVIL: EVIL})
        trial.observe(
            [
                Observation(1, "t-01", "guest_meminfo", "PageTables", 4096.0, "bytes"),
                Observation(2, "t-01", f"guest_process/{EVIL}", EVIL, None, EVIL, gap=EVIL),
            ]
        )
        trial.event("snapshot", 3, label=EVIL, file=EVIL)
        trial.event("trial.end", 4, outcome=EVIL, error=EVIL * 500, hint=EVIL)
        trial.console_log.write_bytes(b"\xff\xfe\x00" + EVIL.encode() * 2000)
    writer.finish("failed", 3)
    return writer.directory


def test_the_same_folder_gives_the_same_page(run_dir: Path, tmp_path: Path) -> None:
    before = (run_dir / "report.html").read_bytes()
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    (copy / "report.html").unlink()
    assert build_report(copy).read_bytes() == before


def test_it_changes_with_what_was_measured(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    path = copy / "summary.csv"
    path.write_text(path.read_text().replace("partial", "refused"))
    assert build_report(copy).read_bytes() != (run_dir / "report.html").read_bytes()


def test_the_page_fetches_nothing(page: html.HtmlElement) -> None:
    for element in page.iter():
        for name, value in element.attrib.items():
            assert name not in {"src", "href", "srcset", "data", "action", "poster"}, (element.tag, name)
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
    assert sections[:2] == ["answer", "comparison"]
    answer = page.get_element_by_id("answer").text_content()
    assert "6.12 ended with 13.21 MiB of guest page tables, 7.3-pt-reclaim with 788 KiB" in answer
    assert "Of the 1.5 GiB asked for, unplug gave back 1.084 GiB (72 %) with 6.12" in answer
    assert "213 blocks stayed; 203 of them hold a page-table page, and 199 of those" in answer
    assert "fewer page-table bytes (12.45 MiB) gave back only 4 MiB more memory" in answer


def test_it_has_every_section_and_says_that_it_is_synthetic(page: html.HtmlElement) -> None:
    ids = [section.get("id") for section in page.xpath("//body/section")]
    assert ids[2:] == [
        "page-tables",
        "virtio-mem",
        "balloon",
        "map",
        "policies",
        "steps",
        "gaps",
        "provenance",
    ]
    assert "synthetic data" in page.xpath("//header")[0].text_content()
    gaps = page.get_element_by_id("gaps").text_content()
    assert "no second level under TCG" in gaps
    assert "guest_process/touch:411/VmPTE" in gaps
    assert "the guest did not answer within 2 s" in gaps


def test_every_figure_says_in_words_what_it_shows(page: html.HtmlElement) -> None:
    figures = page.xpath("//figure//*[@role='img']")
    assert len(figures) == 2 * 3 + 4 + 2  # three series, two maps each, one of policies each
    words = [figure.get("aria-label") for figure in figures]
    assert all(len(text) > 40 for text in words)
    assert len(set(words)) == len(words)
    assert any("199 page tables, nothing else that cannot move" in text for text in words)


def test_charts_have_places_and_readable_axes(page: html.HtmlElement) -> None:
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    assert {*specs} == set(page.xpath("//div[@class='chart']/@id"))
    for spec in specs.values():
        text = json.dumps(spec)
        assert spec["width"] == "container"
        assert "iB'" in text  # ticks carry a binary unit
        assert not re.search(r'"v": \d{6,}', text), "no raw bytes"
    # All arms on one scale, else bars and lines of two panels cannot be compared.
    for kind in ("page-tables", "virtio-mem", "policies"):
        domains = [
            re.findall(r'"domain": \[0, [^]]*\]', json.dumps(specs[key])) for key in specs if kind in key
        ]
        assert len(domains) == 2
        assert domains[0] == domains[1] != []


def test_modelled_figures_are_called_modelled(page: html.HtmlElement) -> None:
    policies = page.get_element_by_id("policies")
    rows = policies.xpath(".//tbody/tr")
    assert len(rows) == 2 * 2 * len(POLICIES.names())  # arms, snapshots, policies
    assert all(row.xpath(".//span[@class='origin modelled']") for row in rows)
    assert "modelled" not in page.get_element_by_id("comparison").text_content()
    assert page.get_element_by_id("comparison").xpath(".//span[@class='origin predicted']")


def test_what_guests_say_stays_text(tmp_path: Path) -> None:
    directory = evil_run(tmp_path)
    summary.refresh(directory)
    text = build_report(directory).read_text(encoding="utf-8")
    page = html.document_fromstring(text)
    assert len(page.xpath("//script")) == 3
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "49&" not in text
    shown = page.get_element_by_id("trouble").text_content()
    assert "</script><script>alert(1)</script>" in shown
    assert len(text) - len("".join(page.xpath("//script/text()"))) < 100_000, "bounded"
    specs = json.loads(page.xpath("//script[@id='charts']/text()")[0])
    assert any("</script>" in json.dumps(spec) for spec in specs.values()), "the name is in the data, inert"


def test_junit_is_xml_that_fails_where_a_trial_did(tmp_path: Path, run_dir: Path) -> None:
    suite = etree.parse(write_junit(run_dir)).getroot()
    assert suite.get("tests") == "2"
    assert suite.get("failures") == "0"
    assert [case.get("name") for case in suite] == ["6.12-01", "7.3-pt-reclaim-01"]
    evil = etree.parse(write_junit(evil_run(tmp_path))).getroot()
    assert evil.get("failures") == "1"
    (failure,) = evil.iter("failure")
    assert "alert(1)" in (failure.text or "")
    assert "next: " in (failure.text or "")


def test_junit_names_trials_that_never_began(tmp_path: Path) -> None:
    suite = etree.parse(write_junit(write_run(tmp_path, trials=1, finish="interrupted"))).getroot()
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    assert [case.get("name") for case in suite if case.find("skipped") is not None] == ["7.3-pt-reclaim-01"]


_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_SAMPLE = re.compile(rf"orchestrator_[a-z0-9_]+\{{{_LABEL}(?:,{_LABEL})*\}} {_NUMBER}")
_COMMENT = re.compile(r"# (?:HELP orchestrator_[a-z0-9_]+ .+|TYPE orchestrator_[a-z0-9_]+ gauge)")


@pytest.mark.parametrize("evil", [False, True])
def test_metrics_follow_the_textfile_format(run_dir: Path, tmp_path: Path, evil: bool) -> None:
    text = write_prometheus(evil_run(tmp_path) if evil else run_dir).read_text(encoding="utf-8")
    assert text.endswith("\n")
    for line in text.splitlines():
        assert (_COMMENT if line.startswith("#") else _SAMPLE).fullmatch(line), line
    typed = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(typed) == len(set(typed))
    if not evil:
        assert "second_level_bytes" not in text
        assert re.search(
            r'orchestrator_blocks_pinned\{.*arm="6.12",trial="6.12-01"\} 213\.0$', text, re.MULTILINE
        )
        assert 'value="partial"} 1' in text


def test_a_run_without_any_trial_has_a_page(tmp_path: Path) -> None:
    page = html.document_fromstring(build_report(write_run(tmp_path, trials=0, finish="failed")).read_text())
    assert "No trial has come far enough" in page.get_element_by_id("answer").text_content()


def test_a_killed_run_has_a_page_that_says_so(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=1, finish=None, snapshots=False)
    meta = json.loads((directory / "meta.json").read_text())
    meta["writer"]["pid"] = (1 << 22) + 1
    (directory / "meta.json").write_text(json.dumps(meta))
    page = html.document_fromstring(build_report(directory).read_text(encoding="utf-8"))
    answer = page.get_element_by_id("answer").text_content()
    assert "The run was killed: 1 of 2 trials have ended" in answer


def test_another_version_is_refused(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=0)
    meta = json.loads((directory / "meta.json").read_text()) | {"schema_version": 99}
    (directory / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadInputError, match="99"):
        build_report(directory)


def test_downsampling_keeps_extremes_and_ends() -> None:
    points = [(float(t), float(t % 7)) for t in range(50_000)]
    points[31_234] = (31_234.0, 1e9)
    points[40_001] = (40_001.0, -5.0)
    kept = downsample(points)
    assert len(kept) <= MAX_POINTS
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[31_234], points[40_001]} <= set(kept)
    assert downsample(points[:50]) == points[:50]


def test_cells_of_the_map_stand_where_their_blocks_are() -> None:
    import numpy as np

    chosen = np.zeros(40, dtype=np.bool_)
    chosen[[0, 17, 39]] = True
    assert re.findall(r"M(\d+) (\d+)", _path(chosen, 16)) == [("0", "0"), ("1", "1"), ("7", "2")]
    many = np.zeros(6400, dtype=np.bool_)
    many[14:20] = True  # over the end of the first row
    assert _path(many, 16) == "M14 0h2v1h-2zM0 1h4v1h-4z"


def test_words_and_numbers() -> None:
    assert clean("a\x1b[31mb\u202ec\n d") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c  d"
    assert len(clean("x" * 1000)) == 120
    assert clean_block("a\r\nb\x00") == "a\nb\N{REPLACEMENT CHARACTER}"
    assert percent(999_999, 1_000_000) == "99.99 %"
    assert percent(998, 1000) == "99.8 %"
    assert percent(1, 3000) == "0.033 %"
    assert percent(1, 3) == "33 %"
    assert percent(0, 3) == "0 %"
    assert percent(3, 3) == "100 %"
    assert [seconds(value) for value in (0, 4.2e-5, 0.0042, 3.21, 75)] == [
        "0.0 s",
        "42 µs",
        "4.2 ms",
        "3.2 s",
        "1 min 15 s",
    ]

"""What was not measured is missing everywhere, with its reason: nothing that is made of a run has a 0 for it.

Two ways to see that, neither of which knows the places: what the host counts for other guests is changed, and
nothing that is made of a run under TCG may change; and of runs in which all that was measured is above 0,
nothing may have a 0 in it: no table, sentence, chart or export.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lxml import etree, html
from synthetic_run import ARMS, snapshot
from tcg_run import MOMENTS, STEPS, host_readings, unmeasurable, write_tcg_run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import main
from orchestrator.export.junit import write_junit
from orchestrator.export.prometheus import write_prometheus
from orchestrator.observation import NO_SECOND_LEVEL
from orchestrator.records.events import SnapshotTaken, StepEnd, TrialEnd
from orchestrator.report.page import build_report
from orchestrator.store import RunWriter, open_run
from orchestrator.store.snapshot_file import write_snapshot
from orchestrator.summary import METRIC, METRICS

# A word of nothing but 0: `0`, `0.0`, `+0.00`; no part of a date, a version, a name or a larger number.
ZERO = re.compile(r"(?<![\w.,:/])0(?:[.,]0+)?(?![\w,:/]|\.\d)")
# What is counted by the program itself, and may well be 0.
COUNTED = {"lost", "lost_trials", "exit_code", "tested", "trials_done"}
EXPECT = [{"metric": "second_level_bytes", "arm": "old", "at_most": float(1 << 20)}]
VARIANTS = [(), *((action,) for action in STEPS), tuple(STEPS)]


def typed(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([str(word) for word in argv])
    return capsys.readouterr().out


def made(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Everything that is made of a run: files, and what the verbs print. Paths are taken out."""
    summary.refresh(directory)
    build_report(RunAnalysis.open(directory))
    write_junit(RunAnalysis.open(directory))
    write_prometheus(RunAnalysis.open(directory))
    results = directory.parent
    typed(capsys, "baseline", directory, "--output", results / "baseline.json")
    files = [path for path in directory.iterdir() if path.suffix in {".csv", ".html", ".xml", ".prom"}]
    found = {path.name: path.read_text(encoding="utf-8") for path in [*files, results / "baseline.json"]}
    for verb in (["show", directory], ["compare", directory], ["list", "--results", results]):
        found[str(verb[0])] = typed(capsys, *verb)
        found[f"{verb[0]} --json"] = typed(capsys, *verb, "--json")
    return {name: text.replace(str(results), "RESULTS") for name, text in found.items()}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def of_page(page: str) -> tuple[str, list[Any]]:
    """The words of a report, with those shown on hovering, but for its provenance; and its charts' data."""
    tree = html.fromstring(page)
    (specs,) = tree.xpath("//script[@id='charts']")
    data = json.loads(specs.text)
    for element in tree.xpath("//script | //style | //svg//path | //section[@id='provenance']"):
        element.drop_tree()
    said = [str(word) for word in tree.xpath("//@title | //@aria-label")]
    return "\n".join([*(str(text) for text in tree.xpath("//body//text()")), *said]), data


def charted(spec: Any) -> Iterator[float]:
    """Numbers of a chart's data, without times, which begin at 0."""
    if isinstance(spec, dict):
        for row in spec.get("values", []) if isinstance(spec.get("values"), list) else []:
            for key, value in row.items() if isinstance(row, dict) else ():
                if key not in {"t", "end"} and isinstance(value, int | float) and not isinstance(value, bool):
                    yield value
        yield from (number for inner in spec.values() for number in charted(inner))
    elif isinstance(spec, list):
        yield from (number for inner in spec for number in charted(inner))


def zeros_in(value: Any, place: str = "") -> Iterator[str]:
    """Where a JSON document has a 0, in numbers and in texts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in COUNTED | {"meta"}:
                yield from zeros_in(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from zeros_in(inner, place)
    elif isinstance(value, str):
        yield from (f"{place}: {value}" for _ in ZERO.findall(value))
    elif not isinstance(value, bool) and value == 0:
        yield place


def zeros(name: str, text: str) -> list[str]:
    """Every 0 in something that is made of a run."""
    if name.endswith("json"):
        return list(zeros_in(json.loads(text)))
    if name.endswith(".csv"):
        return [f"{key}: {cell}" for row in rows(text) for key, cell in row.items() if ZERO.search(cell)]
    if name.endswith(".prom"):
        return [line for line in text.splitlines() if line[0] != "#" and float(line.split()[-1]) == 0]
    if name.endswith(".xml"):
        cases = etree.fromstring(text.encode()).iter("testcase")
        said = [(str(key), str(word)) for case in cases for key, word in case.items()]
        return [f"{key}={word}" for key, word in said if ZERO.search(word)]
    words, charts = of_page(text) if name.endswith(".html") else (text, [])
    found = [line.strip() for line in words.splitlines() if ZERO.search(line)]
    return found + [f"a chart: {number}" for number in charted(charts) if number == 0]


def test_a_zero_is_seen_wherever_it_stands() -> None:
    """The eyes of the tests below."""
    assert zeros("show", "0 B of 3 B\n0.0 times\nof 10.0, 0.05 and 6.0.1\n+0.0 %\nthere were 0.\n") == [
        *("0 B of 3 B", "0.0 times", "+0.0 %", "there were 0."),
    ]
    assert zeros("x --json", '{"a": [{"b": 0.0}], "c": "0 B", "d": false, "exit_code": 0, "e": "10"}') == [
        *(".a.b", ".c: 0 B"),
    ]
    assert zeros("x.csv", "a,b\n0,10\n0.0,\n") == ["a: 0", "a: 0.0"]
    assert zeros("x.prom", '# HELP 0\nm{a="b"} 0.0\nm{a="c"} 1\n') == ['m{a="b"} 0.0']
    assert zeros("x.xml", '<testsuite errors="0"><testcase time="0.000"/></testsuite>') == ["time=0.000"]
    charts = '<script id="charts">{"c": {"data": {"values": [{"t": 0, "v": 0}]}}}</script>'
    page = f'<html><body><p title="0 B">1</p><section id="provenance">0</section>{charts}</body></html>'
    assert zeros("x.html", page) == ["0 B", "a chart: 0"]


def test_kvm_would_have_been_read_here() -> None:
    """What is derived below is no empty set: a guest under KVM has these readings on the same host."""
    assert unmeasurable() == {("host_meminfo", "second_level_bytes"), ("host_kvm", "pages_4k")}
    gaps = {(source, one.name): one.gap for source, one in host_readings(0) if one.value is None}
    assert all(gaps[place] for place in unmeasurable())


@pytest.mark.slow
def test_what_the_host_counts_for_others_changes_nothing_that_is_made_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tuple(STEPS)
    nothing = write_tcg_run(tmp_path / "a", asked, counted_kib=0, expect=EXPECT)
    much = write_tcg_run(tmp_path / "b", asked, counted_kib=2088, expect=EXPECT)
    (much / "meta.json").write_bytes((nothing / "meta.json").read_bytes())
    one, other = made(nothing, capsys), made(much, capsys)
    assert set(one) == set(other)
    assert set(one) >= {"report.html", "moments.csv", "metrics.prom", "junit.xml", "show", "compare --json"}
    for name, text in one.items():
        assert text == other[name], name


@pytest.mark.parametrize("asked", VARIANTS, ids=lambda asked: "+".join(asked) or "nothing")
def test_there_is_no_zero_in_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: Sequence[str]
) -> None:
    found = made(write_tcg_run(tmp_path, asked, expect=EXPECT), capsys)
    seen = {name: zeros(name, text) for name, text in found.items()}
    assert {name: places for name, places in seen.items() if places} == {}
    for name, text in found.items():
        assert " 0.0 times" not in text, name


@pytest.mark.parametrize("asked", VARIANTS, ids=lambda asked: "+".join(asked) or "nothing")
def test_what_is_missing_has_its_reason_at_each_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: Sequence[str]
) -> None:
    directory = write_tcg_run(tmp_path, asked)
    found = made(directory, capsys)
    missing = summary.load(open_run(directory))[0].gaps
    assert "second_level_bytes" in missing
    assert ("balloon_achieved_bytes" in missing) == ("inflate" not in asked)
    reasons = {(row["trial"], row["metric"]): row["reason"] for row in rows(found["summary_gaps.csv"])}
    shown, compared = json.loads(found["show --json"]), json.loads(found["compare --json"])
    (pair,) = compared["comparisons"][0]["pairs"]
    page, _ = of_page(found["report.html"])
    for row in rows(found["summary.csv"]):
        for metric in METRICS:
            assert (row[metric] == "") == (metric in missing)
            assert bool(reasons.get((row["trial"], metric))) == (metric in missing)
    for trial in shown["trials"]:
        assert set(trial["metrics"]) == set(METRICS) - set(missing)
        assert trial["gaps"] == dict(missing)
    for metric, reason in missing.items():
        assert f"orchestrator_{metric}" not in found["metrics.prom"]
        assert metric not in pair["metrics"]
        assert METRIC[metric].given or not METRIC[metric].unit or pair["missing"][metric]
        assert metric in page
        assert reason in page
        assert metric not in found["baseline.json"]


def test_moments_say_why_they_lack_a_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_tcg_run(tmp_path)
    found = made(directory, capsys)
    moments, gaps = rows(found["moments.csv"]), rows(found["moments_gaps.csv"])
    assert len(moments) == 2 * len(MOMENTS)
    reasons = {(row["trial"], row["moment"], row["reading"]): row["reason"] for row in gaps}
    assert all(reasons.values())
    empty = {
        (row["trial"], row["moment"], field)
        for row in moments
        for field, cell in row.items()
        if cell == "" and field not in {"run", "trial", "moment"}
    }
    assert empty == set(reasons)
    assert {field for *_, field in empty} >= {name for _, name in unmeasurable()}
    assert reasons["old-01", "loaded", "second_level_bytes"] == NO_SECOND_LEVEL
    assert all(row["needed_bytes"] for row in moments), (
        "predicted from what QEMU has mapped, with or without KVM"
    )
    (old, _) = summary.saved(open_run(directory))
    assert old == summary.summarise_run(open_run(directory))[0], "as written, so read back"
    assert "second-level tables" not in found["show"].split("Host")[0]


def test_a_table_of_moments_that_an_older_version_wrote_has_no_zero_either(tmp_path: Path) -> None:
    directory = write_tcg_run(tmp_path)
    summary.refresh(directory)
    path = directory / "moments.csv"
    table = rows(path.read_text())
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows({**row, "second_level_bytes": "0.0"} for row in table)
    (directory / "moments_gaps.csv").unlink()
    meta = json.loads((directory / "meta.json").read_text()) | {"schema_version": 1}
    (directory / "meta.json").write_text(json.dumps(meta))
    for one in summary.load(open_run(directory)):
        assert [moment.readings["second_level_bytes"] for moment in one.moments] == [None] * len(MOMENTS)


def test_a_guest_without_memory_to_take_has_no_blocks_and_not_none_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    import numpy as np

    directory = write_tcg_run(tmp_path, ("inflate",))
    with RunWriter(directory, open_run(directory).meta).trial("old-02") as trial:
        trial.record(StepEnd(t_ns=1, step=1, action="start", workload="sparse-map", expects=["page_table"]))
        trial.record(
            StepEnd(t_ns=2, step=2, action="inflate", outcome="done", mechanism="balloon", direction="take")
        )
        shot = snapshot("inflated", ARMS[0], np.random.default_rng(1))
        write_snapshot(trial.snapshots / "a.npz", dataclasses.replace(shot, regions=()))
        trial.record(SnapshotTaken(t_ns=3, label="inflated", file="a.npz"))
        trial.record(TrialEnd(t_ns=4, outcome="completed"))
    found = made(directory, capsys)
    (row,) = rows(found["snapshots.csv"])
    assert int(row["huge_ranges"]) > 0
    assert {key: row[key] for key in row if key.startswith("blocks_")} == {
        f"blocks_{what}": ""
        for what in (
            "plugged",
            "pinned",
            "pinned_by_several",
            "pinned_by_memmap_only",
            "no_migration_target",
            "unexplained",
            "expected",
        )
    }
    assert json.loads(found["show --json"])["attribution_check"] == []
    assert "blocks that stayed" not in found["show"]
    assert {row["blocks_freed"] for row in rows(found["policies.csv"])} == {""}

"""Whatever a guest or a run folder says reaches no terminal, page or file for other programs as it came."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree, html
from prometheus_client.parser import text_string_to_metric_families
from shown import must_be_harmless, must_be_page, must_be_prometheus
from synthetic_run import write_run

from orchestrator.cli import main
from orchestrator.summary import refresh

# What a terminal acts on (CSI, OSC 8 links, C1, carriage return), what turns or hides text (bidi marks, zero
# width, line separators), and what a page, a template, rich, CSV and Prometheus would take for their own.
SIGNS = "\x1b[31m\x1b]8;;http://evil/\x07link\x1b]8;;\x07\x9b2J\x9d0;t\x9c\x90q\x9c\r\b\x7f\u202e\u2066\u200b\ufeff\u2028"
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(1)>[red]x[/red][link=http://evil]:boom:{{7*7}}`"
HOSTILE = f"{SIGNS}{MARKUP}\"'\\\n# TYPE x gauge\nnext: orchestrator clean\t"
LONG = 1 << 20
MOST_OF_A_TEXT = (
    1 << 17
)  # characters, in a document for programs; a line of events.jsonl has a quarter of that
VERBS = (
    *(("show",), ("show", "--json"), ("list",), ("list", "--json"), ("compare",), ("compare", "--json")),
    *(("blame",), ("blame", "--json"), ("model", "replay", "--budget", "64KiB"), ("report",)),
)
# Ids and words that decide what a folder is: another one is refused, or is none of this program's.
KEPT = {
    *("event", "schema_version", "id", "status", "file", "started_at", "of", "origin", "action", "out_of"),
    *("direction", "target", "mechanism", "trial", "snapshot", "region", "frame_class", "table", "policy"),
}
MOST_SHOWN = 900_000  # of a text of 1 MB, bytes in any output but the page, which has its scripts


def texts_of(value: Any) -> Iterator[str]:
    """Every text of a JSON value, and every key."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)
    elif isinstance(value, str):
        yield value


def hostile(text: str, *, long: bool) -> str:
    """A text that means harm and differs where others do."""
    return f"{text[:2]}{'N' * LONG if long else HOSTILE}"


def replaced(value: Any, arms: dict[str, str], *, long: bool, key: str = "") -> Any:
    """Every text of a JSON value, but those that decide what it is."""
    if isinstance(value, dict):
        return {name: replaced(one, arms, long=long, key=name) for name, one in value.items()}
    if isinstance(value, list):
        return [replaced(one, arms, long=long, key=key) for one in value]
    if not isinstance(value, str) or key in KEPT:
        return value
    return arms.setdefault(value, hostile(value, long=long))


def _lines(path: Path, arms: dict[str, str], *, long: bool) -> Iterator[str]:
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        if fields["event"] == "trial.end":
            fields |= {"outcome": "failed", "error": "e", "details": "d", "hint": "h", "console_tail": "c"}
        yield json.dumps(replaced(fields, arms, long=long))
    at = {"t_ns": 10**11}
    for more in (
        {"event": "finding", "kind": "k", "text": "t", "workload": "w", "address": "a"},
        {"event": "kernel.log", "source": "s", "complaints": 1, "lines": ["l"], "stall_lines": ["s"]},
        {
            "event": "oom.kill",
            "pid": 1,
            "comm": "c",
            "workload": "w",
            "out_of": "memory",
            "page_table_bytes": 1,
        },
        {"event": "output", "text": "o", "step": 1},
        {"event": "dimm.answer", "message": "m", "slot": 1},
        {"event": "mark", "label": "m"},
    ):
        yield json.dumps(replaced({**at, **more}, arms, long=long))


def hostile_run(results: Path, *, long: bool) -> Path:
    """A run of which every text that can be another one is."""
    run = write_run(results, "r-1", snapshots=not long, finish="failed", error="e", error_details="d")
    arms: dict[str, str] = {}
    for name in ("plan.json", "meta.json"):
        document = json.loads((run / name).read_text())
        document.setdefault("description", "d")
        (run / name).write_text(json.dumps(replaced(document, arms, long=long)))
    for trial in (run / "trials").iterdir():
        lines = list(_lines(trial / "events.jsonl", arms, long=long))
        (trial / "events.jsonl").write_text("\n".join(lines) + "\n")
        (trial / "console.log").write_text(hostile("c", long=long))
    shutil.copytree(
        next((run / "trials").iterdir()),
        run / "trials" / f"of no plan \x1b[2J\u202e\n{MARKUP[:20].replace('/', '')}",
    )
    return run


@pytest.fixture(scope="module", params=[False, True], ids=["signs", "1 MB"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = hostile_run(tmp_path_factory.mktemp("results"), long=request.param)
    refresh(made)
    return made


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_verb_says_what_a_terminal_acts_on(
    run: Path, verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--results", str(run.parent)) if verb[0] == "list" else (str(run),)
    with pytest.raises(SystemExit) as end:
        main([*verb, *where])
    out, err = capsys.readouterr()
    assert "internal error" not in err, err[-2000:]
    assert end.value.code in {0, 1, 2}, err
    must_be_harmless(out)
    must_be_harmless(err)
    if "--json" not in verb:
        assert len(out) < MOST_SHOWN, len(out)
    assert len(err) < MOST_SHOWN
    assert "\nnext: orchestrator clean" not in out + err, "a line of ours that is not ours"
    if "--json" in verb and end.value.code == 0:
        assert max(map(len, texts_of(json.loads(out)))) <= MOST_OF_A_TEXT


def test_the_files_for_other_programs_have_no_markup_but_their_own(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(run)])
    assert "internal error" not in capsys.readouterr().err
    text = (run / "report.html").read_text(encoding="utf-8")
    must_be_page(text)
    page = html.document_fromstring(text)
    assert len(page.xpath("//script")) == 3
    assert not page.xpath("//img[@src='x']")
    assert "<script>alert" not in text
    own = "".join(page.xpath("//script/text()"))
    assert len(text) - len(own) < MOST_SHOWN, "bounded"
    metrics = (run / "metrics.prom").read_text(encoding="utf-8")
    must_be_prometheus(metrics)
    assert list(text_string_to_metric_families(metrics))
    assert len(metrics) < MOST_SHOWN
    must_be_harmless((run / "junit.xml").read_text(encoding="utf-8"))
    cases = etree.parse(run / "junit.xml").getroot()
    assert {element.tag for element in cases.iter()} <= {
        "testsuite",
        "testcase",
        "failure",
        "skipped",
        "system-out",
    }
    assert (run / "junit.xml").stat().st_size < MOST_SHOWN
    for path in run.glob("*.csv"):
        cells = path.read_text(encoding="utf-8")
        must_be_harmless(cells)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} <= {len(rows[0])}, path.name
        assert path.stat().st_size < MOST_SHOWN, path.name

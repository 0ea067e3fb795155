"""list, show and report, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import GAPS, write_run

from orchestrator import summary
from orchestrator.cli import main


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    whole = write_run(root, "20260101-whole", started_at="2026-01-01T00:00:00+00:00")
    summary.refresh(whole)
    killed = write_run(
        root,
        "20260102-killed",
        trials=1,
        finish=None,
        started_at="2026-01-02T00:00:00+00:00",
        snapshots=False,
    )
    meta = json.loads((killed / "meta.json").read_text())
    meta["writer"]["pid"] = (1 << 22) + 1
    (killed / "meta.json").write_text(json.dumps(meta))
    return root


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cli.runs.out.width", 80)
    monkeypatch.setenv("COLUMNS", "80")


def typed(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> Any:
    code, out, _ = typed(capsys, *argv, "--json")
    assert code == 0
    return json.loads(out)


def test_list_has_the_newest_first_and_fits_80_columns(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = typed(capsys, "list", "--results", results)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["20260102-killed", "hot-unplug", "2026-01-02", "00:00", "killed", "1/2"]
    assert lines[2].split()[-2:] == ["completed", "2/2"]


def test_list_json_has_numbers(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = as_json(capsys, "list", "--results", results)
    assert [(run["run"], run["trials_done"], run["trials_planned"]) for run in listed["runs"]] == [
        ("20260102-killed", 1, 2),
        ("20260101-whole", 2, 2),
    ]
    assert listed["runs"][1]["exit_code"] == 0
    assert listed["runs"][1]["headline"] == "unplugged: 6.12 72 %, 7.3-pt-reclaim 73 %"


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("--status", "killed"), ["20260102-killed"]),
        (("--status", "killed", "--status", "completed"), ["20260102-killed", "20260101-whole"]),
        (("--scenario", "hot-unplug"), ["20260102-killed", "20260101-whole"]),
        (("--scenario", "other"), []),
        (("--arm", "6.12"), ["20260102-killed", "20260101-whole"]),
        (("--arm", "6.13"), []),
        (("--since", "2026-01-02"), ["20260102-killed"]),
        (("--since", "2026-01-01T12:00"), ["20260102-killed"]),
        (("--since", "1h"), []),
        (("--since", "9999w"), ["20260102-killed", "20260101-whole"]),
        (("--kernel", "7.3.1"), ["20260101-whole"]),  # of what was killed, that arm never began
        (("--sort", "status"), ["20260101-whole", "20260102-killed"]),
        (("--limit", "1"), ["20260102-killed"]),
    ],
)
def test_list_filters_and_sorts(
    results: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], ids: list[str]
) -> None:
    listed = as_json(capsys, "list", "--results", results, *words)
    assert [run["run"] for run in listed["runs"]] == ids
    if not ids:
        assert "No such runs" in typed(capsys, "list", "--results", results, *words)[1]


def test_list_of_nothing_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "list", "--results", tmp_path / "none")
    assert code == 0
    assert "next: orchestrator run" in out


def test_list_names_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "meta.json").write_text('{"schema_version": 9}')
    (tmp_path / "odd" / "plan.json").write_text("{}")
    damaged = write_run(tmp_path, "damaged", trials=1, snapshots=False)
    (damaged / "trials" / "6.12-01" / "events.jsonl").write_text("no\nevents\nat all\n")
    write_run(tmp_path, "whole", trials=0)
    listed = as_json(capsys, "list", "--results", tmp_path)
    assert [run["run"] for run in listed["runs"]] == ["whole"]
    assert len(listed["unreadable"]) == 2
    assert any("schema version 9" in brief for brief in listed["unreadable"])


def test_show_has_arms_as_columns(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "show", "20260101", "--results", results)
    assert code == 0
    (kept,) = [line for line in out.splitlines() if line.strip().startswith("shortfall")]
    assert kept.split() == ["shortfall", "426", "MiB", "422", "MiB"]
    assert "completed" in out
    assert f"next: orchestrator report {results}/20260101-whole" in out


def test_show_of_a_killed_run_says_so_and_what_to_type(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = typed(capsys, "show", "last", "--results", results)
    assert code == 0
    assert "The run was killed: 1 of 2 trials have ended" in out
    assert "next: orchestrator clean" in out


def test_show_json_has_numbers_not_strings(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys, "show", "20260101-whole", "--results", results)
    metrics = shown["trials"][0]["metrics"]
    assert metrics["unplug_requested_bytes"] == 1536 << 20
    assert isinstance(metrics["workload_p99_seconds"], float)
    assert isinstance(shown["trials"][0]["policies"][0]["bytes_freed"], int)
    assert shown["trials"][0]["gaps"] == GAPS
    assert shown["status"] == "completed"
    assert shown["trials"][0]["snapshots"][1]["blocks_pinned"] == 213
    assert {"frame_class": "page_table", "table": "", "sole_blocker": 199} in [
        {key: row[key] for key in ("frame_class", "table", "sole_blocker")}
        for row in shown["trials"][0]["blame"]
        if row["snapshot"] == "after-unplug"
    ]


def test_show_says_what_was_injected_and_found(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys, "show", "20260101-whole", "--results", results)
    assert [
        (row["trial"], row["expected"], row["blocks_expected"]) for row in shown["attribution_check"]
    ] == [
        ("6.12-01", ["page_table"], 203),
        ("7.3-pt-reclaim-01", ["page_table"], 201),
    ]
    _, out, _ = typed(capsys, "show", "20260101-whole", "--results", results)
    said = " ".join(out.split())
    assert (
        "6.12-01: injected sparse-touch; of 213 blocks still plugged: page tables in 203, attributed 203; "
        "0 are unexplained."
    ) in said
    assert "199 of 213 with 6.12 and 197 of 211 with 7.3-pt-reclaim would be free without" in said
    assert as_json(capsys, "show", "20260102-killed", "--results", results)["attribution_check"] == []


def test_show_by_path_needs_no_results_folder(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "show", results / "20260102-killed")["status"] == "killed"


@pytest.mark.slow
def test_report_is_made_from_a_run_that_was_killed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "report", "last", "--results", results)
    assert code == 0
    assert Path(out.strip()) == results / "20260102-killed" / "report.html"
    made = as_json(capsys, "report", "last", "--results", results)
    assert all(Path(made[name]).is_file() for name in ("report", "junit", "metrics"))
    assert (results / "20260102-killed" / "summary.csv").is_file()


@pytest.mark.parametrize("verb", ["show", "report"])
@pytest.mark.parametrize("name", ["..", "nothing", "2026", "../nowhere", ""])
def test_a_name_that_means_no_run_is_bad_input(
    results: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    code, out, err = typed(capsys, verb, name, "--results", results)
    assert code == 2
    assert out == ""
    assert "error:" in err
    assert "next:" in err


def test_of_kept_tables_the_trials_are_those_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    reference = Path(__file__).parents[2] / "results" / "reference"
    rows = as_json(capsys, "list", "--results", reference)["runs"]
    assert rows
    assert all(row["trials_done"] == row["trials_planned"] > 0 for row in rows)
    code, _, err = typed(capsys, "blame", reference / "pmd")
    assert code == 2
    assert "pmd: only the tables of its trials were kept" in err
    assert f"orchestrator show {reference / 'pmd'}" in err


def test_no_line_ends_in_blanks(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = typed(capsys, "show", results / "20260101-whole")
    assert [line for line in out.splitlines() if line != line.rstrip()] == []

"""Files of a baseline, and `baseline`, `run` and `resume` that are held against one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree
from played import PROGRESS, Played, places
from synthetic_run import write_run
from test_execute import plan
from test_gate import ACHIEVED, BASE, NEEDED, SHORTFALL, arm_with, run

from orchestrator import summary
from orchestrator.analysis.run import RunAnalysis
from orchestrator.cli import main
from orchestrator.errors import BadInputError, GuestLostError
from orchestrator.export.junit import write_junit
from orchestrator.plan import Plan
from orchestrator.report.page import build_report
from orchestrator.run.execute import execute_plan, resume_run
from orchestrator.store import open_run
from orchestrator.verdict import (
    Change,
    Gate,
    GateResult,
    figures_of,
    read_baseline,
    read_gate_result,
    write_baseline,
    write_gate_result,
)


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_baseline(tmp_path / "b.json", BASE)
    assert read_baseline(tmp_path / "b.json") == BASE
    with pytest.raises(BadInputError, match="no trial that counts"):
        write_baseline(tmp_path / "b.json", replace(BASE, arms=()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no baseline"),
        ("[]", "is no baseline"),
        ("[" * 100_000, "is no baseline"),
        ('{"figures": {}}', "is no baseline"),
        ('{"baseline": 2}', "of format 2; this program reads 1"),
        ('{"baseline": 1, "figures": {"run": 5}}', "is damaged"),
    ],
)
def test_files_that_are_no_baseline(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(BadInputError, match=why):
        read_baseline(tmp_path / "b.json")
    with pytest.raises(BadInputError, match="No such file"):
        read_baseline(tmp_path / "missing.json")


@pytest.mark.parametrize("value", ['"many"', "true", "null", "NaN", "1e999"])
def test_a_figure_that_is_no_number_is_told(tmp_path: Path, value: str) -> None:
    path = tmp_path / "b.json"
    write_baseline(path, arm_with(BASE, **{SHORTFALL: 12345.0}))
    path.write_text(path.read_text().replace("12345.0", value, 1))
    with pytest.raises(BadInputError, match="is damaged"):
        read_baseline(path)


def test_only_a_baseline_is_written_over(tmp_path: Path) -> None:
    scenario, old = tmp_path / "s.yaml", tmp_path / "old.json"
    scenario.write_text("version: 1\n")
    with pytest.raises(BadInputError, match="is no baseline: it is not written over"):
        write_baseline(scenario, BASE)
    assert scenario.read_text() == "version: 1\n"
    old.write_text('{"baseline": 0}')  # one of another format is one
    write_baseline(old, BASE)
    assert read_baseline(old) == BASE
    with pytest.raises(BadInputError, match="no folder"):
        write_baseline(tmp_path / "none" / "b.json", BASE)


def test_an_outcome_is_kept_and_is_in_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(tmp_path / "results", snapshots=False)
    summary.refresh(directory)
    assert read_gate_result(directory) is None
    outcome = Gate(BASE, "regression").judge(run(150.0, seed=2))
    write_gate_result(directory, outcome)
    assert read_gate_result(directory) == outcome
    suite = etree.fromstring(write_junit(RunAnalysis.open(directory)).read_bytes())
    cases = {
        case.get("name"): case
        for case in suite.findall("testcase")
        if "baseline" in case.get("classname", "")
    }
    assert set(cases) == {f"{metric} of a" for metric in (SHORTFALL, ACHIEVED, NEEDED)}
    assert [one.get("type") for one in cases[f"{SHORTFALL} of a"].findall("failure")] == ["regression"]
    assert cases[f"{NEEDED} of a"].find("failure") is None
    assert suite.get("failures") == "2"
    assert "change: " in (cases[f"{NEEDED} of a"].findtext("system-out") or "")
    page = build_report(RunAnalysis.open(directory)).read_text()
    assert "Baseline: failed (2 of 3 metrics, base)." in page
    assert "unplug_shortfall_bytes of a: 49.5 MiB more than the baseline" in page
    with pytest.raises(SystemExit):
        main(["show", str(directory)])
    assert "baseline: failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["show", str(directory), "--json"])
    shown = json.loads(capsys.readouterr().out)["gate"]
    assert (shown["baseline"], shown["passed"], len(shown["changes"])) == ("base", False, 3)
    write_gate_result(directory, replace(outcome, fail_on="nothing"))
    assert etree.fromstring(write_junit(RunAnalysis.open(directory)).read_bytes()).get("failures") == "0"
    write_gate_result(directory, replace(outcome, changes=(), refused="kernel of a: x against y"))
    assert etree.fromstring(write_junit(RunAnalysis.open(directory)).read_bytes()).get("failures") == "1"
    (directory / "gate.json").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_gate_result(directory)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(tmp_path / "results", snapshots=False)
    summary.refresh(directory)
    file = tmp_path / "b.json"
    with pytest.raises(SystemExit) as ended:
        main(["baseline", str(directory), "-o", str(file), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"6.12": 1, "7.3-pt-reclaim": 1}
    assert [arm.name for arm in read_baseline(file).arms] == ["6.12", "7.3-pt-reclaim"]
    with pytest.raises(SystemExit):
        main(["compare", str(file), str(directory), "--json"])
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["base"] == directory.name
    file.write_text("nonsense")
    scenario = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(scenario), "--results", str(tmp_path / "r"), "--baseline", str(file)])
    assert ended.value.code == 2
    assert "is no baseline" in capsys.readouterr().err
    assert not (tmp_path / "r").exists(), "nothing was begun"


def test_an_unfinished_run_is_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(tmp_path / "results", trials=1, finish="interrupted", snapshots=False)
    with pytest.raises(SystemExit) as ended:
        main(["baseline", str(directory), "-o", str(tmp_path / "b.json")])
    assert ended.value.code == 2
    assert f"orchestrator resume {directory}" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--varies", "kernel"), "are for --baseline FILE"),
        (("--tolerate", "5%"), "are for --baseline FILE"),
        (("--baseline", "none.json", "--tolerate", "-5"), "write for example 5%"),
        (("--baseline", "none.json"), "none.json: No such file"),
    ],
)
def test_bad_words_are_told_before_anything_runs(
    typed: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (("run", "none.yaml"), ("resume", "none")):
        with pytest.raises(SystemExit) as ended:
            main([*verb, *typed])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def played(folder: Path, trials: Played) -> tuple[Plan, Gate]:
    """A plan, and a gate of a run of it that was played: without figures, which is enough to fit or not."""
    planned = plan("  - wait: {time: 1s}\n")
    execute_plan(planned, places(folder), folder / "first", PROGRESS, machinery=trials)
    trials.ran.clear()
    first = open_run(folder / "first")
    return planned, Gate(figures_of(first, summary.load(first)), "regression")


@pytest.mark.parametrize(
    ("changes", "refused", "code"),
    [
        ((Change("a", SHORTFALL, "regression", 1.0),), "", 1),
        ((Change("a", SHORTFALL, "improvement", -1.0),), "", 0),
        ((Change("a", SHORTFALL, "undecided", reason="few"),), "", 1),
        ((), "kernel of a", 1),
    ],
)
def test_exit_code_and_folder_say_what_the_gate_found(
    *,
    changes: tuple[Change, ...],
    refused: str,
    code: int,
    tmp_path: Path,
    trials: Played,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned, gate = played(tmp_path, trials)
    found = GateResult("first", "regression", 0.05, changes, refused)
    monkeypatch.setattr(Gate, "judge", lambda *_: found)
    result = execute_plan(
        planned, places(tmp_path), tmp_path / "second", PROGRESS, gate=gate, machinery=trials
    )
    assert (result.exit_code, open_run(tmp_path / "second").meta.exit_code) == (code, code)
    assert read_gate_result(tmp_path / "second") == found


def test_a_baseline_that_does_not_fit_is_refused_before_anything_runs(tmp_path: Path, trials: Played) -> None:
    _, gate = played(tmp_path, trials)
    other = plan("  - wait: {time: 2s}\n")
    with pytest.raises(BadInputError, match=r"steps of a: step 1\.wait\.time 1\.0 against 2\.0"):
        execute_plan(other, places(tmp_path), tmp_path / "second", PROGRESS, gate=gate, machinery=trials)
    assert trials.ran == []
    assert not (tmp_path / "second").exists()
    execute_plan(
        other,
        places(tmp_path),
        tmp_path / "second",
        PROGRESS,
        gate=replace(gate, varies=("steps",)),
        machinery=trials,
    )
    assert len(trials.ran) == 4


def test_a_night_that_lost_a_trial_is_held_too_until_it_is_resumed(tmp_path: Path, trials: Played) -> None:
    planned, gate = played(tmp_path, trials)
    trials.ends = {planned.trials[0].id: GuestLostError("gone")}
    result = execute_plan(
        planned, places(tmp_path), tmp_path / "second", PROGRESS, gate=gate, machinery=trials
    )
    assert result.exit_code == 3
    assert read_gate_result(tmp_path / "second") is not None
    trials.ends = {}
    assert resume_run(tmp_path / "second", places(tmp_path), PROGRESS, machinery=trials).exit_code == 0
    assert read_gate_result(tmp_path / "second") is None, "what was said of less holds no more"

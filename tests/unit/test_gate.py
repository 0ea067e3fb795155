"""A baseline and its gate: planted regressions fail, improvements and chance do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.report.gate import outcome_sentences
from orchestrator.report.junit import write_junit
from orchestrator.verdict import (
    ArmFigures,
    Gate,
    RunFigures,
    TrialFigures,
    read_baseline,
    read_outcome,
    write_baseline,
    write_outcome,
)

MIB = 1 << 20
SHORTFALL, ACHIEVED, NEEDED = "unplug_shortfall_bytes", "unplug_achieved_bytes", "second_level_needed_bytes"


def run(
    shortfall_mib: float, *, name: str = "r1", trials: int = 8, seed: int = 1, accel: str = "tcg"
) -> RunFigures:
    rng = np.random.default_rng(seed)
    figures = []
    for number in range(trials):
        kept = round(shortfall_mib + rng.normal(0, 2)) * MIB
        metrics = {SHORTFALL: kept, ACHIEVED: 2048 * MIB - kept, NEEDED: kept}
        figures.append(TrialFigures(f"a-{number}", number, number, "", metrics))
    arm = ArmFigures("a", "6.12", accel, {"guest": "debian-13"}, tuple(figures))
    return RunFigures(name, "nightly", 1, "c0ffee", (arm,))


BASE = run(100.0, name="base")


def words(gate: Gate, figures: RunFigures) -> dict[str, str]:
    return {one.metric: one.word for one in gate.judge(figures).changes}


def test_more_memory_kept_is_a_regression_and_fails() -> None:
    outcome = Gate(BASE, "regression").judge(run(150.0, seed=2))
    assert {one.metric: one.word for one in outcome.changes} == {
        SHORTFALL: "regression",
        ACHIEVED: "regression",
        NEEDED: "change",  # neither way is better
    }
    assert not outcome.passed
    assert {one.metric for one in outcome.failing} == {SHORTFALL, ACHIEVED}
    said = outcome_sentences(outcome)
    (kept,) = (sentence for sentence in said if "shortfall" in sentence)
    assert kept.startswith("Regression: unplug_shortfall_bytes of a: ")
    assert "MiB more than the baseline [" in kept
    assert kept.endswith(", +49 %.")


def test_less_is_an_improvement_and_passes_unless_any_change_fails() -> None:
    better = run(50.0, seed=2)
    assert words(Gate(BASE, "regression"), better)[SHORTFALL] == "improvement"
    assert Gate(BASE, "regression").judge(better).passed
    assert not Gate(BASE, "change").judge(better).passed
    assert Gate(BASE, "nothing").judge(run(900.0)).passed


def test_chance_passes() -> None:
    outcome = Gate(BASE, "change").judge(run(100.0, seed=3))
    assert {one.word for one in outcome.changes} == {"none"}
    assert outcome.passed
    assert "by no more than chance" in outcome_sentences(outcome)[-1]


def test_too_few_trials_are_undecided_and_say_so() -> None:
    outcome = Gate(BASE, "change").judge(run(900.0, trials=4))
    assert {one.word for one in outcome.changes} == {"undecided"}
    assert outcome.passed
    assert "too few trials to say" in outcome_sentences(outcome)[0]


def test_what_cannot_be_compared_fails_and_says_why() -> None:
    gate = Gate(BASE, "regression")
    outcome = gate.judge(run(100.0, accel="kvm"))
    assert "acceleration of a: tcg against kvm" in outcome.refused
    assert not outcome.passed
    forced = replace(gate, force=True).judge(run(100.0, seed=3, accel="kvm"))
    assert forced.passed
    assert forced.forced
    other = replace(run(100.0, seed=3), arms=(replace(run(100.0, seed=3).arms[0], kernel="6.13"),))
    assert not gate.judge(other).passed
    assert replace(gate, varies=("kernel",)).judge(other).passed


def test_a_baseline_of_something_else_is_told_before_anything_runs() -> None:
    with pytest.raises(BadInputError, match="is of scenario 'nightly', not of 'other'"):
        Gate(BASE).must_fit("other", ["a"])
    with pytest.raises(BadInputError, match="none of the arms"):
        Gate(BASE).must_fit("nightly", ["b"])
    Gate(BASE).must_fit("nightly", ["a", "b"])


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


def test_an_outcome_is_kept_and_is_in_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(tmp_path / "results", snapshots=False)
    summary.refresh(directory)
    assert read_outcome(directory) is None
    outcome = Gate(BASE, "regression").judge(run(150.0, seed=2))
    write_outcome(directory, outcome)
    assert read_outcome(directory) == outcome
    suite = etree.fromstring(write_junit(directory).read_bytes())
    cases = {
        case.get("name"): case for case in suite.findall("testcase") if "baseline" in case.get("classname")
    }
    assert set(cases) == {f"{metric} of a" for metric in (SHORTFALL, ACHIEVED, NEEDED)}
    assert cases[f"{SHORTFALL} of a"].find("failure").get("type") == "regression"
    assert cases[f"{NEEDED} of a"].find("failure") is None
    assert suite.get("failures") == "2"
    with pytest.raises(SystemExit):
        main(["show", str(directory)])
    assert "baseline: not kept" in capsys.readouterr().out
    (directory / "gate.json").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_outcome(directory)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(tmp_path / "results", snapshots=False)
    summary.refresh(directory)
    file = tmp_path / "b.json"
    with pytest.raises(SystemExit) as ended:
        main(["baseline", str(directory), "-o", str(file), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["trials"] == {"6.12": 1, "7.3-pt-reclaim": 1}
    assert [arm.name for arm in read_baseline(file).arms] == ["6.12", "7.3-pt-reclaim"]
    file.write_text("nonsense")
    scenario = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(scenario), "--results", str(tmp_path / "r"), "--baseline", str(file)])
    assert ended.value.code == 2
    assert "is no baseline" in capsys.readouterr().err
    assert not (tmp_path / "r").exists(), "nothing was begun"

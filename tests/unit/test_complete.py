"""What a shell is offered to complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from orchestrator.calibrate import CODECS
from orchestrator.cli import main, model_costs
from orchestrator.cli.complete import kind_of, trace_policies
from orchestrator.cli.main import VERBS, cli
from orchestrator.model.policies import OverTrace
from orchestrator.scenario.kind import is_overcommit, is_sweep
from orchestrator.shipped import scenario_file, scenario_names
from orchestrator.yamlfile import read_yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; sys.argv[0] = 'orchestrator'; from orchestrator.cli import main; main()"
NEWEST, OLDEST = "quickstart-2026-02", "quickstart-2026-01"


def offered(*words: str) -> list[str]:
    """What completes the last word, which may be empty; a folder or file of the shell's own is `(file)`."""
    found = BashComplete(cli, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE").get_completions(
        list(words[:-1]), words[-1]
    )
    assert all(one.value for one in found), "click's script for zsh would lose count"
    return [one.value if one.type == "plain" else f"({one.type})" for one in found]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, one of which is broken, and a scenario."""
    for name, plan in ((NEWEST, {"arms": [{"name": "a"}, {"name": "b"}]}), (OLDEST, None)):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text("{" if plan is None else json.dumps(plan))
    (tmp_path / "results" / "notes").mkdir()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "mine.yaml").write_text("arms: {one: {}, other: {}}\nmatrix: [\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_verbs_and_options() -> None:
    assert offered("") == list(VERBS)
    assert offered("co") == ["compare", "completion"]
    assert offered("--v") == ["--version"]
    assert "--repeats" in offered("run", "--re")


@pytest.mark.parametrize("verb", ["show", "report", "resume", "baseline", "compare"])
def test_runs(verb: str, here: Path) -> None:
    assert offered(verb, "") == ["last", OLDEST, NEWEST]
    assert offered(verb, "quick") == [OLDEST, NEWEST]
    assert offered(verb, "--results", str(here / "scenarios"), "") == []


def test_runs_or_files() -> None:
    for words in (("blame",), ("model", "replay"), ("model", "compare")):
        assert offered(*words, "") == ["(file)", "last", OLDEST, NEWEST]


def test_arms_of_a_scenario_and_of_runs() -> None:
    (Path("scenarios") / "mine.yaml").write_text("arms: {one: {}, other: {}}\n")
    assert offered("run", "scenarios/mine.yaml", "--arm", "o") == ["one", "other"]
    assert offered("plan", "quickstart", "--arm", "") == ["linux-6.12", "linux-7.x"]
    assert offered("run", "oom", "--arm", "7.x-1536m-z") == ["7.x-1536m-zram"], "of a matrix"
    assert offered("list", "--arm", "") == ["a", "b"]
    assert offered("compare", NEWEST, "--base", "") == ["a", "b"]
    assert offered("compare", OLDEST, "--base", "") == []


def test_scenarios_policies_workloads_guests() -> None:
    assert offered("run", "mi") == ["(file)", "mine"]
    assert "overcommit/sparse" in offered("validate", "over")
    assert offered("init", "x", "--scenario", "quick") == ["quickstart"]
    assert offered("init", "x", "--workload", "red") == ["redis"]
    assert "common" not in offered("init", "x", "--workload", "")
    assert offered("model", "replay", "t.npz", "--policy", "c") == ["clock"]
    (Path("guests")).mkdir()
    (Path("guests") / "bare.yaml").touch()
    assert offered("shell", "") == ["bare"]


def test_a_verb_is_offered_what_it_can_play(here: Path) -> None:
    (here / "scenarios" / "grid.yaml").write_text("version: 1\novercommit: {file: x.yaml}\n")
    for verb in ("run", "plan"):
        names = offered(verb, "")
        assert {"quickstart", "mine"} <= set(names)
        assert not {"grid", "overcommit/sparse", "sweeps/hosts"} & set(names)
    sweeps, questions = offered("model", "sweep", ""), offered("model", "overcommit", "")
    assert {"grid", "sweeps/hosts"} <= set(sweeps)
    assert "overcommit/sparse" in questions
    assert not set(sweeps) & set(questions) - {"(file)"}
    assert {"grid", "mine", "overcommit/sparse", "quickstart"} <= set(offered("validate", ""))


@pytest.mark.parametrize("name", scenario_names())
def test_the_kind_of_a_file_is_what_it_is_when_read(name: str) -> None:
    path = scenario_file(Path(name))
    file = read_yaml(path)
    expected = "sweep" if is_sweep(file) else "overcommit" if is_overcommit(file) else "scenario"
    assert kind_of(path) == expected


def test_what_cannot_be_read_offers_nothing() -> None:
    assert offered("run", "mine", "--arm", "") == []
    assert offered("run", "nowhere", "--arm", "") == []
    assert offered("run", "--arm", "") == []


def test_names_that_stand_for_what_takes_numpy() -> None:
    assert sorted(trace_policies()) == sorted(policy.name for policy in OverTrace.every())
    assert model_costs.CODECS == CODECS


@pytest.mark.slow
def test_nothing_slow_is_imported_for_it(here: Path) -> None:
    words = (["run", "mine", "--arm", ""], ["model", "replay", "t", "--policy", ""], ["show", ""], [""])
    for one in words:
        line = ["orchestrator", *one]
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", PROGRAM],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "_ORCHESTRATOR_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(line),
                "COMP_CWORD": str(len(one)),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
        assert "orchestrator.cli.complete" in imported or one == [""]
        assert not imported & {"numpy", "pandas", "pyarrow", "scipy", "numba", "libvirt"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert f"_ORCHESTRATOR_COMPLETE={shell}_complete" in script

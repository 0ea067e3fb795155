"""`claims --run`: what it lists, runs, leaves and goes on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from played import Played

from orchestrator.cli import main
from orchestrator.errors import (
    InfrastructureError,
)
from orchestrator.retest import jobs as jobs_module
from orchestrator.run import machinery as machinery_module


@pytest.fixture
def called(
    tmp_path: Path, trials: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`claims` on played trials: exit code, output, progress."""
    monkeypatch.setattr(machinery_module, "RealMachinery", lambda: trials)
    monkeypatch.setattr(jobs_module, "REPEATS", {"pmd": 1, "online-policy": 1})

    def call(*words: str, claim: str = "unplug-page-tables") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["claims", claim, *words, "--results", str(tmp_path)])
        printed = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, printed.out, printed.err

    return call


def test_a_dry_run_lists_what_would_run(
    called: Callable[..., tuple[int, str, str]], trials: Played, tmp_path: Path
) -> None:
    code, said, _ = called("--dry-run", "--json")
    document = json.loads(said)
    assert code == 0
    assert document["format"] == "orchestrator.claims.run/1"
    assert document["dry_run"]
    assert [(job["name"], job["state"], job["left"]) for job in document["jobs"]] == [
        ("online-policy", "to do", 2),
        ("pmd", "to do", 2),
    ]
    assert document["estimate_seconds"] == pytest.approx(
        sum(job["estimate_seconds"] for job in document["jobs"])
    )
    command = "orchestrator run scenarios/pmd.yaml --arm linux-6.12 --arm linux-7.x --repeats 1"
    assert document["jobs"][1]["command"] == command
    assert document["claims"] == []
    assert trials.ran == []
    assert list(tmp_path.iterdir()) == []
    code, said, _ = called("--dry-run")
    assert "scenarios/pmd.yaml" in said


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_interrupted_or_failed(
    called: Callable[..., tuple[int, str, str]], trials: Played, tmp_path: Path
) -> None:
    trials.ends = {
        "linux-6.12-movable-01": InfrastructureError("a disk is full"),
        "linux-7.x-01": KeyboardInterrupt(),
    }
    code, _, said = called("--run")
    assert code == 130
    assert f"orchestrator claims unplug-page-tables --run --results {tmp_path}   goes on" in said
    assert "a disk is full" in said
    done = set(trials.ran) - set(trials.ends)
    trials.ran = []
    trials.ends = {"linux-6.12-movable-01": InfrastructureError("a disk is full")}
    code, said, _ = called("--run", "--json")
    document = json.loads(said)
    assert code == document["exit_code"] == 3, "one failed, and the other was run all the same"
    assert not done & set(trials.ran)
    assert {job["name"]: (job["state"], job["left"]) for job in document["jobs"]} == {
        "online-policy": ("begun", 1),
        "pmd": ("done", 0),
    }
    assert "a disk is full" in next(job["error"] for job in document["jobs"] if job["left"])
    trials.ran, trials.ends = [], {}
    code, said, _ = called("--run")
    assert (code, trials.ran) == (0, ["linux-6.12-movable-01"])
    assert "no fresh result" in said, "played trials have no figures"
    trials.ran = []
    assert called("--run")[0] == 0
    assert trials.ran == []


def test_nothing_is_begun_that_would_take_too_long(
    called: Callable[..., tuple[int, str, str]], trials: Played
) -> None:
    code, _, said = called("--run", "--within", "1s")
    assert (code, trials.ran) == (0, [])
    assert "pmd is left for the next call" in said


def test_what_reads_a_run_is_left_until_that_is_whole(
    called: Callable[..., tuple[int, str, str]], trials: Played
) -> None:
    trials.ends = {"linux-6.12-01": InfrastructureError("a disk is full")}
    code, said, progress = called("--run", "--json", claim="tlb-stalls")
    assert code == 3
    assert "tlb is left for the next call: it reads pmd, of which 1 trial must still run" in progress
    document = json.loads(said)
    assert [(job["name"], job["state"], job["left"]) for job in document["jobs"]] == [
        ("pmd", "begun", 1),
        ("tlb", "to do", 1),
    ]
    assert [job["error"] for job in document["jobs"]] == ["pmd: trial linux-6.12-01: a disk is full", ""]


def test_repeats_are_for_a_run(called: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = called("--repeats", "2")
    assert code == 2
    assert "--run" in said


_STUB = """\
#!/bin/sh
echo "$@" >> {folder}/called
echo '{{"error": "{error}"}}'
exit {code}
"""


@pytest.mark.slow
def test_each_run_has_a_process_of_its_own_where_it_takes_one(
    called: Callable[..., tuple[int, str, str]],
    trials: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libvirt's embedded driver has one root for as long as its process lives."""
    monkeypatch.setattr(type(trials), "one_run_a_process", True)
    stub = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(stub))
    for code, error in ((3, "a disk is full"), (0, "")):
        stub.write_text(_STUB.format(folder=tmp_path, code=code, error=error))
        stub.chmod(0o755)
        ended, said, _ = called("--run", "--json", "--repeats", "2")
        assert (ended, trials.ran) == (code, [])
        assert [job["error"] for job in json.loads(said)["jobs"]] == [error, error]
    calls = (tmp_path / "called").read_text().splitlines()
    assert [call.rpartition(" ")[2] for call in calls] == ["online-policy", "pmd"] * 2
    head = f"-m orchestrator claims unplug-page-tables --run --results {tmp_path} "
    assert all(call.startswith(head) and " --repeats 2 " in call for call in calls), calls


@pytest.mark.slow
def test_such_a_process_makes_one_result_and_says_what_went_wrong(
    called: Callable[..., tuple[int, str, str]], trials: Played
) -> None:
    trials.ends = {"linux-6.12-01": InfrastructureError("a disk is full")}
    code, said, _ = called("--run", "--one", "pmd")
    assert (code, json.loads(said)) == (3, {"error": "pmd: trial linux-6.12-01: a disk is full"})
    assert set(trials.ran) == {"linux-6.12-01", "linux-7.x-01"}

"""`clean --older-than`: old run folders go; those that go on, are young, or cannot be read stay."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.host.runtime import runtime_base
from orchestrator.store import RunWriter, Status


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    folder = tmp_path / "results"
    folder.mkdir()
    for name, days, status in (
        ("old", 40, Status.COMPLETED),
        ("killed", 40, None),
        ("going", 40, Status.RUNNING),
        ("young", 20, Status.COMPLETED),
    ):
        run = RunWriter.create(folder, name, "{}", {})
        if status is not Status.RUNNING:
            run.finish(status or Status.FAILED, 0)
        run.update_meta(started_at=(datetime.now(UTC) - timedelta(days=days)).isoformat())
    (folder / "notes").mkdir()
    broken = folder / "broken"
    broken.mkdir()
    (broken / "meta.json").write_text("{")
    return folder


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["clean", *words])
    return int(end.value.code or 0)


def test_old_runs_go(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--older-than", "30d", "--results", str(results), "--json")
    assert call(*words, "--dry-run") == 0
    told = json.loads(capsys.readouterr().out)["old_runs"]
    assert sorted(Path(one).name for one in told) == ["killed", "old"]
    assert (results / "old").exists()
    assert call(*words) == 0
    assert sorted(path.name for path in results.iterdir()) == ["broken", "going", "notes", "young"]


def test_without_an_age_no_run_goes(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--results", str(results)) == 0
    assert "nothing to clean" in capsys.readouterr().out
    assert (results / "old").exists()


@pytest.mark.parametrize("age", ["30", "1w", "-1d", "d"])
def test_an_age_that_is_none(results: Path, capsys: pytest.CaptureFixture[str], age: str) -> None:
    assert call("--older-than", age, "--results", str(results)) == 2
    assert "such as `30d`" in capsys.readouterr().err


def test_guests_elsewhere_are_listed_before_they_are_ended(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runtime_base() / "0123abcd"
    folder.mkdir(parents=True)
    owner = {"pid": 1, "started_ticks": 1, "boot_id": "another", "run_dir": "/results/r1"}
    (folder / "owner.json").write_text(json.dumps(owner))
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n')
    script.chmod(0o755)
    there = "/var/tmp/orchestrator-guest-abcdefgh"
    note = {"script": str(script), "address": "kvm7", "port": None, "user": "root"}
    (folder / "elsewhere-g.json").write_text(json.dumps({**note, "domain": "g", "folder": there}))
    assert call("--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)["guests_elsewhere"]
    assert told == [{"host": "root@kvm7", "domain": "g", "folder": there}]
    assert call("--dry-run", "--results", str(results)) == 0
    assert "would end the guest g on root@kvm7" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "said").exists()
    assert folder.exists()
    assert call("--json") == 0
    assert "destroy g" in (tmp_path / "said").read_text()
    assert not folder.exists()


def test_a_trial_that_stays_keeps_what_names_it(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next `clean` knows of it then."""
    trial = tmp_path / ".t-01.0123abcd.unit"
    trial.mkdir()
    folder = runtime_base() / "0123abcd"
    folder.mkdir(parents=True)
    owner = {"pid": 1, "started_ticks": 1, "boot_id": "another", "run_dir": str(trial)}
    (folder / "owner.json").write_text(json.dumps(owner))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if another user's file were in it
        assert call("--results", str(results)) == 3
    assert f"{trial} could not be removed" in capsys.readouterr().err
    assert folder.exists()
    assert call("--results", str(results)) == 0
    assert not trial.exists()
    assert not folder.exists()

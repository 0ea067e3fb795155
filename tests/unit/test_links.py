"""A run folder that came from elsewhere: no link in it is followed out of it, and no name leads out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from played import PROGRESS, Played, places
from synthetic_run import write_run
from test_execute import plan

from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.plan import Plan
from orchestrator.run.execute import execute_plan, resume_run
from orchestrator.run.gather import gather
from orchestrator.run.inputs import with_inputs
from orchestrator.run.unit import Unit, execute_alone
from orchestrator.store import find_run, list_runs, open_run
from orchestrator.summary import refresh

STEPS = "  - start: {workload: sparse-map}\n"
PRIVATE = "not for whoever made the folder"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("whole"), "r-1", snapshots=False)
    refresh(run)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "results" / "r-1"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nobody may read or change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(PRIVATE)
    (folder / "events.jsonl").write_text("{}\n")
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as end:
        main(argv)
    told = capsys.readouterr()
    return end.value.code, told.out + told.err


LINKS = [
    *(
        "summary.csv",
        "meta.json",
        "plan.json",
        "findings.csv",
        "gate.json",
        "time.json",
        "report.html",
        ".room",
    ),
    *("trials", "trials/6.12-01", "trials/6.12-01/events.jsonl", "trials/6.12-01/snapshots", "lost", "boots"),
    *("trials/6.12-01/observations.parquet", "trials/6.12-01/snapshots/a.npz", "trials/a-trial-of-no-plan"),
]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_refused_and_named(
    run: Path, outside: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, before = run / name, listing(outside)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(
        outside if name in {"trials", "lost", "boots"} or "." not in path.name[1:] else outside / "secret"
    )
    for verb in (["show"], ["show", "--json"], ["report"], ["compare"]):
        code, text = said([*verb, str(run)], capsys)
        assert code == 2, (verb, text)
        assert str(path) in text.replace("\n", "")
        assert PRIVATE not in text
    assert listing(outside) == before


def test_a_link_within_the_run_is_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "summary.csv").rename(run / "kept.csv")
    (run / "summary.csv").symlink_to("kept.csv")
    assert said(["show", str(run)], capsys)[0] == 0
    kept = (run / "kept.csv").read_bytes()
    assert said(["report", str(run)], capsys)[0] == 0
    assert not (run / "summary.csv").is_symlink(), "it was replaced, not written through"
    assert (run / "kept.csv").read_bytes() == kept


@pytest.mark.parametrize("name", ["summary.csv", "trials/6.12-01/events.jsonl", "meta.json"])
def test_a_fifo_is_no_file_of_a_run(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    code, text = said(["show", str(run)], capsys)
    assert (code, "is a FIFO" in text.replace("\n", " ")) == (2, True), text


def test_a_run_that_is_a_link_is_read_by_its_path_only(run: Path, tmp_path: Path) -> None:
    results = tmp_path / "other"
    results.mkdir()
    (results / "latest").symlink_to(run)
    shutil.copytree(run, results / "r-2")
    (results / "alias").symlink_to("r-2")
    assert find_run(str(results / "latest"), results).directory == results / "latest", (
        "whoever types it means it"
    )
    for name in ("latest", "late"):
        with pytest.raises(BadInputError, match="leads out of"):
            find_run(name, results)
    assert find_run("alias", results).directory == results / "alias"
    errors = [one.brief for one in list_runs(results) if isinstance(one, BadInputError)]
    assert len(errors) == 1
    assert str(results / "latest") in errors[0]


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return with_inputs(plan(STEPS), places(tmp_path))


@pytest.mark.parametrize("name", ["trials", "lost", "boots", ".room", "meta.json"])
def test_resume_writes_through_no_link(
    tmp_path: Path, planned: Plan, trials: Played, outside: Path, name: str
) -> None:
    run_dir = execute_plan(planned, places(tmp_path), tmp_path / "r", PROGRESS, machinery=trials).directory
    shutil.rmtree(run_dir / "trials" / planned.trials[0].id)
    path, before = run_dir / name, listing(outside)
    moved = tmp_path / "moved"
    if path.exists():
        path.rename(moved)
    path.symlink_to(
        moved if name in {"trials", "meta.json"} else outside / ("" if name != ".room" else "secret")
    )
    begun = len(trials.ran)
    with pytest.raises(BadInputError, match="leads out of"):
        resume_run(run_dir, places(tmp_path), PROGRESS, machinery=trials)
    assert len(trials.ran) == begun
    assert listing(outside) == before


HOSTILE_IDS = ["../x", "/tmp/x", "a/b", "..", ".", "", "a\nb", "\x1b[2J", "a" * 500, "\u202ex", "-rf"]


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_no_id_of_a_plan_from_elsewhere_leads_out(
    tmp_path: Path, planned: Plan, trials: Played, outside: Path, name: str
) -> None:
    run_dir = execute_plan(planned, places(tmp_path), tmp_path / "r", PROGRESS, machinery=trials).directory
    foreign = json.loads((run_dir / "plan.json").read_text())
    foreign["trials"][0]["id"] = name
    (run_dir / "plan.json").write_text(json.dumps(foreign))
    before = listing(tmp_path)
    begun = len(trials.ran)
    with pytest.raises(BadInputError):
        resume_run(run_dir, places(tmp_path), PROGRESS, machinery=trials)
    assert len(trials.ran) == begun
    changed = {file for file, text in listing(tmp_path).items() if before.get(file) != text}
    assert all(file.startswith("r/") for file in changed), changed


def test_gather_reads_no_events_by_a_link(
    tmp_path: Path, planned: Plan, trials: Played, outside: Path
) -> None:
    trial = planned.trials[0].id
    unit = Unit.of(planned, places(tmp_path), PROGRESS, None, trials)
    made = execute_alone(unit, trial, tmp_path / "into").directory
    (made / "events.jsonl").rename(outside / "moved")
    damage: list[Callable[[Path], None]] = [lambda path: path.symlink_to(outside / "moved"), os.mkfifo]
    for put in damage:
        put(made / "events.jsonl")
        with pytest.raises(BadInputError, match="is not a file of ours"):
            gather(planned, [tmp_path / "into"], tmp_path / "run")
        (made / "events.jsonl").unlink()


def test_clean_removes_no_run_through_a_link(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "other"
    results.mkdir()
    (results / "latest").symlink_to(run)
    (results / "trials").symlink_to(tmp_path)
    meta = json.loads((run / "meta.json").read_text()) | {"started_at": "2001-01-01T00:00:00+00:00"}
    (run / "meta.json").write_text(json.dumps(meta))
    shutil.copytree(run, results / "old")
    before = listing(run)
    code, text = said(["clean", "--older-than", "1d", "--results", str(results)], capsys)
    assert code == 0, text
    assert not (results / "old").exists()
    assert listing(run) == before
    assert open_run(run).id == "r-1"

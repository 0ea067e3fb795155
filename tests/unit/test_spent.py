"""Where the time of a run went: what is neither in guests nor in steps is the orchestrator's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.records.events import Phase, StepBegin, StepEnd, TrialBegin
from orchestrator.store import RunWriter, Status, open_run
from orchestrator.summary import note_time, time_spent

PLAN = json.dumps(
    {
        "scenario": "s",
        "arms": [{"name": "a"}],
        "trials": [{"id": "a-w", "arm": "a", "warm_up": True}, {"id": "a-1", "arm": "a"}],
    }
)


def run_of_two(folder: Path) -> Path:
    """Two trials of 6 s in a guest each (a start of 1 s, settings of 2 s, a step of 3 s), one a warm-up."""
    run = RunWriter.create(folder, "r", PLAN, {"image_seconds": 0.5})
    for trial in ("a-w", "a-1"):
        with run.trial(trial) as writer:
            writer.record(TrialBegin(t_ns=0))
            writer.record(Phase(t_ns=10**9, phase="restore", seconds=1.0))
            writer.record(Phase(t_ns=4 * 10**9, phase="settings", seconds=2.0))
            writer.record(StepBegin(t_ns=5 * 10**9, step=1))
            writer.record(StepEnd(t_ns=8 * 10**9, step=1, outcome="done"))
            writer.record(StepBegin(t_ns=9 * 10**9, step=2))  # and never ended
    run.finish(Status.COMPLETED, 0)
    return run.directory


def test_it_adds_up(tmp_path: Path) -> None:
    directory = run_of_two(tmp_path)
    (directory / "time.json").write_text('{"wall_seconds": 15.0}')
    spent = time_spent(open_run(directory))
    assert spent is not None
    assert (spent.wall, spent.image, spent.starting, spent.steps) == (15.0, 0.5, 6.0, 6.0)
    assert spent.overhead == pytest.approx(2.5)


def test_warm_ups_count_nowhere_else(tmp_path: Path) -> None:
    run = open_run(run_of_two(tmp_path))
    assert [trial.id for trial in run.trials] == ["a-1"]
    assert [trial.id for trial in run.warm_ups] == ["a-w"]
    assert len(run.planned) == 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        '{"wall_seconds": "x"}',
        '{"wall_seconds": 0}',
        '{"wall_seconds": -1}',
        '{"wall_seconds": 1e999}',
    ],
)
def test_without_a_time_there_is_no_answer(tmp_path: Path, text: str | None) -> None:
    directory = run_of_two(tmp_path)
    if text is not None:
        (directory / "time.json").write_text(text)
    assert time_spent(open_run(directory)) is None


def test_a_run_of_two_processes_has_no_one_time(tmp_path: Path) -> None:
    directory = run_of_two(tmp_path)
    note_time(open_run(directory))
    RunWriter.resume(directory).finish(Status.COMPLETED, 0)
    assert time_spent(open_run(directory)) is None


def test_of_trials_side_by_side_there_is_no_rest(tmp_path: Path) -> None:
    directory = run_of_two(tmp_path)
    (directory / "time.json").write_text('{"wall_seconds": 7.0}')
    RunWriter(directory, open_run(directory).meta).update_meta(trials_at_once=2)
    assert time_spent(open_run(directory)) is None


def test_the_time_is_that_of_this_process(tmp_path: Path) -> None:
    directory = run_of_two(tmp_path)
    note_time(open_run(directory))
    spent = time_spent(open_run(directory))
    assert spent is not None
    assert 0 < spent.wall < 86_400

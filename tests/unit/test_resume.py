"""Going on with a run: what is missing or was lost is done, what is there stays, and no two machines mix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from played import FACTS, PROGRESS, Trials, places
from test_execute import plan

from orchestrator.errors import BadInputError, GuestLostError, GuestPanicError, OrchestratorError
from orchestrator.plan import TrialPlan
from orchestrator.run import execute
from orchestrator.run.execute import execute_plan, resume_run
from orchestrator.run.side_by_side import Ended
from orchestrator.store import TrialWriter, open_run

ROOT = Path(__file__).parents[2]


def test_what_is_missing_or_lost_is_done_and_the_rest_stays(tmp_path: Path, trials: Trials) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    ids = [trial.id for trial in planned.trials]
    trials.ends = {
        ids[0]: GuestLostError("gone"),
        ids[1]: GuestPanicError("a panic is what came out"),
        ids[2]: KeyboardInterrupt(),
    }
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS)
    assert trials.ran == ids[:3]
    trials.ran, trials.ends = [], {}
    result = resume_run(tmp_path / "run", places(tmp_path), PROGRESS)
    assert trials.ran == [ids[0], ids[2], ids[3]]
    run = open_run(tmp_path / "run")
    outcomes = {trial.id: trial.outcome for trial in run.trials}
    assert outcomes == {ids[0]: "completed", ids[1]: "panic", ids[2]: "completed", ids[3]: "completed"}
    assert [summary.trial for summary in result.summaries] == ids
    assert sorted(path.name for path in (tmp_path / "run" / "lost").iterdir()) == sorted(
        [f"{ids[0]}.1", f"{ids[2]}.1"]
    )
    assert run.meta["status"] == "completed"
    assert len(run.meta["resumed_at"]) == 1
    with pytest.raises(BadInputError, match="is whole"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS)


def test_what_sets_a_host_that_trials_share_runs_in_turn(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def side_by_side(_: object, plans: Sequence[TrialPlan]) -> Iterator[Ended]:
        started.extend(one.id for one in plans)
        yield from ()

    monkeypatch.setattr(execute.SideBySide, "run", side_by_side)
    ignored = plan("  - wait: {time: 1s}\ntimes: ignored\n")
    execute_plan(ignored, places(tmp_path), tmp_path / "together", PROGRESS)
    assert started == [trial.id for trial in ignored.trials]
    started.clear()
    sets = plan("  - wait: {time: 1s}\ntimes: ignored\nhost_setup: {thp: never}\n")
    execute_plan(sets, places(tmp_path), tmp_path / "in-turn", PROGRESS)
    assert started == []
    assert trials.ran == [trial.id for trial in sets.trials]


def test_figures_of_a_trial_that_was_lost_again_are_the_new_ones(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    last = planned.trials[-1].id
    trials.ends = {last: GuestLostError("gone")}
    execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS)
    summarised: list[str] = []
    summarise = execute.summarise_trial
    monkeypatch.setattr(
        execute, "summarise_trial", lambda run, one: summarised.append(one.id) or summarise(run, one)
    )
    resume_run(tmp_path / "run", places(tmp_path), PROGRESS)
    assert set(summarised) == {last}


def test_another_machine_does_not_go_on(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    trials.ends = {planned.trials[1].id: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS)
    monkeypatch.setattr(execute, "guest_facts", lambda *_: {**FACTS, "accel": "kvm"})
    with pytest.raises(BadInputError, match="another accel: tcg"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS)


def test_a_nested_run_is_compared_by_its_nested_hosts(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_nested_hosts = {"qemu": "10.0.13"}
    of_this_machine = {"hypervisor": {"qemu": "9.2.0"}}
    facts = {"accel": "kvm", "image": {"key": "k"}}
    monkeypatch.setattr(execute, "guest_facts", lambda *_: facts)
    monkeypatch.setattr(execute, "host_facts", lambda *_: of_this_machine)
    play = trials.run

    def run(planned: TrialPlan, lab: Any, writer: TrialWriter) -> OrchestratorError | None:
        lab.learn({"hypervisor": of_nested_hosts})
        return play(planned, lab, writer)

    monkeypatch.setattr(execute, "run_trial", run)
    planned = plan("  - wait: {time: 1s}\n")
    trials.ends = {planned.trials[1].id: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, connect="nested")
    assert open_run(tmp_path / "run").meta["hypervisor"] == of_nested_hosts
    trials.ends = {}
    assert resume_run(tmp_path / "run", places(tmp_path), PROGRESS, connect="nested").errors == ()


def test_a_nested_host_is_no_place_for_software_emulation(tmp_path: Path, trials: Trials) -> None:
    planned = plan("  - wait: {time: 1s}\n").model_copy(update={"accel": "tcg"})
    with pytest.raises(BadInputError, match="nested host runs its guests by KVM"):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, connect="nested")
    assert not (tmp_path / "run").exists()
    assert trials.ran == []


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path, trials: Trials) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS)
    meta = tmp_path / "run" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "status": "running"}))
    with pytest.raises(BadInputError, match="may still be going on"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS)

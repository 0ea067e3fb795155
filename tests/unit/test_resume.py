"""Going on with a run: what is missing or was lost is done, what is there stays, and no two machines mix."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from played import PROGRESS, SPEC, Played, places
from test_execute import plan

from orchestrator.cli import main
from orchestrator.errors import (
    BadInputError,
    GuestLostError,
    GuestPanicError,
    InfrastructureError,
)
from orchestrator.plan import Plan
from orchestrator.run import execute, hosts
from orchestrator.run.execute import execute_plan, resume_run
from orchestrator.run.parallel import Ended, TrialTask
from orchestrator.store import Run, TrialFolder, liveness, open_run
from orchestrator.summary import TrialSummary, summarise_trial

ROOT = Path(__file__).parents[2]


def test_what_is_missing_or_lost_is_done_and_the_rest_stays(tmp_path: Path, trials: Played) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    ids = [trial.id for trial in planned.trials]
    trials.ends = {
        ids[0]: GuestLostError("gone"),
        ids[1]: GuestPanicError("a panic is what came out"),
        ids[2]: KeyboardInterrupt(),
    }
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    assert trials.ran == ids[:3]
    trials.ran, trials.ends = [], {}
    result = resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)
    assert trials.ran == [ids[0], ids[2], ids[3]]
    run = open_run(tmp_path / "run")
    outcomes = {trial.id: trial.outcome for trial in run.trials}
    assert outcomes == {ids[0]: "completed", ids[1]: "panic", ids[2]: "completed", ids[3]: "completed"}
    assert [summary.trial for summary in result.analysis.summaries] == ids
    assert sorted(path.name for path in (tmp_path / "run" / "lost").iterdir()) == sorted(
        [f"{ids[0]}.1", f"{ids[2]}.1"]
    )
    assert run.meta.status == "completed"
    assert len(run.meta.resumed_at) == 1
    with pytest.raises(BadInputError, match="is whole"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)


@pytest.mark.parametrize("changed", ["  - wait: {time: 1s}\nhost_setup: {thp: never}\n", "  - flush: {}\n"])
def test_what_sets_a_host_that_trials_share_runs_in_turn(
    tmp_path: Path, trials: Played, changed: str
) -> None:
    started: list[str] = []

    def side_by_side(tasks: Sequence[TrialTask]) -> Iterator[Ended]:
        started.extend(one.name for one in tasks)
        yield from ()

    trials.side_by_side = side_by_side
    ignored = plan("  - wait: {time: 1s}\ntimes: ignored\n")
    execute_plan(ignored, places(tmp_path), tmp_path / "together", PROGRESS, machinery=trials)
    assert started == [trial.id for trial in ignored.trials]
    started.clear()
    sets = plan(f"{changed}times: ignored\n")
    execute_plan(sets, places(tmp_path), tmp_path / "in-turn", PROGRESS, machinery=trials)
    assert started == []
    assert trials.ran == [trial.id for trial in sets.trials]


def test_boots_that_the_cache_lacks_are_made_first_each_once(tmp_path: Path, trials: Played) -> None:
    made: list[str] = []
    trials.embedded = True  # they start warm
    trials.states = {1}

    def side_by_side(tasks: Sequence[TrialTask]) -> Iterator[Ended]:
        assert trials.ran == [], "boots come first"
        for task in tasks:
            made.append(task.boot)
            failed = InfrastructureError("it did not boot") if task.plan.boot == 3 else None
            yield Ended(task.name, "failed" if failed else "completed", failed, 1.0)

    trials.side_by_side = side_by_side
    planned = plan("  - wait: {time: 1s}\n")  # twins: boots 1 and 2, 3 and 4
    result = execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    assert sorted(made) == [f"debian-13-{SPEC.guest_key}.{boot}" for boot in (2, 3, 4)]
    assert len(trials.ran) == len(planned.trials), "a boot that failed is tried again by its trials"
    assert result.errors == ()
    made.clear()
    trials.states |= {2, 3}
    execute_plan(planned, places(tmp_path), tmp_path / "again", PROGRESS, machinery=trials)
    assert made == [], "one alone is made by its trial"


def test_figures_of_a_trial_that_was_lost_again_are_the_new_ones(
    tmp_path: Path, trials: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    last = planned.trials[-1].id
    trials.ends = {last: GuestLostError("gone")}
    execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    summarised: list[str] = []

    def noted(run: Run, one: TrialFolder) -> TrialSummary:
        summarised.append(one.id)
        return summarise_trial(run, one)

    monkeypatch.setattr(execute, "summarise_trial", noted)
    resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)
    assert set(summarised) == {last}


def test_another_machine_does_not_go_on(tmp_path: Path, trials: Played) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    trials.ends = {planned.trials[1].id: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    trials.accel = "kvm"
    with pytest.raises(BadInputError, match="another accel: tcg"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)


def test_a_run_that_goes_on_on_another_host_names_both(
    tmp_path: Path, trials: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    trials.ends = {planned.trials[2].id: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    assert open_run(tmp_path / "run").meta.hosts == {}
    here = socket.gethostname()
    trials.ends = {planned.trials[3].id: KeyboardInterrupt()}
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(hosts, "boot_id", lambda: "another boot")
    monkeypatch.setattr(liveness, "boot_id", lambda: "another boot")
    with pytest.raises(KeyboardInterrupt):
        resume_run(
            (tmp_path / "run").rename(tmp_path / "moved"), places(tmp_path), PROGRESS, machinery=trials
        )
    run = open_run(tmp_path / "moved")
    assert [trial.host for trial in run.trials] == [here, here, "elsewhere", "elsewhere"]
    assert {name: one.hostname for name, one in run.meta.hosts.items()} == {
        here: here,
        "elsewhere": "elsewhere",
    }
    assert run.meta.hosts[here].qemu == run.meta.hosts["elsewhere"].qemu == "10.0.2"
    # The container is started again: the same machine, by another name.
    trials.ends = {}
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    resume_run(tmp_path / "moved", places(tmp_path), PROGRESS, machinery=trials)
    assert [trial.host for trial in open_run(tmp_path / "moved").trials][2:] == ["elsewhere"] * 2


def test_a_nested_run_is_compared_by_its_nested_hosts(tmp_path: Path, trials: Played) -> None:
    of_nested_hosts = {"qemu": "10.0.13"}
    trials.accel, trials.host_facts = "kvm", {}
    trials.learned = {"hypervisor": of_nested_hosts}
    planned = plan("  - wait: {time: 1s}\n")
    trials.ends = {planned.trials[1].id: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        execute_plan(
            planned, places(tmp_path), tmp_path / "run", PROGRESS, connect="nested", machinery=trials
        )
    assert open_run(tmp_path / "run").meta.hypervisor == of_nested_hosts
    trials.ends = {}
    assert (
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS, connect="nested", machinery=trials).errors
        == ()
    )


def test_a_nested_host_is_no_place_for_software_emulation(tmp_path: Path, trials: Played) -> None:
    planned = plan("  - wait: {time: 1s}\n").model_copy(update={"accel": "tcg"})
    with pytest.raises(BadInputError, match="nested host runs its guests by KVM"):
        execute_plan(
            planned, places(tmp_path), tmp_path / "run", PROGRESS, connect="nested", machinery=trials
        )
    assert not (tmp_path / "run").exists()
    assert trials.ran == []


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path, trials: Played) -> None:
    planned = plan("  - wait: {time: 1s}\n")
    execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    meta = tmp_path / "run" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "status": "running"}))
    with pytest.raises(BadInputError, match="may still be going on"):
        resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)


def test_the_host_that_a_run_was_told_is_in_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(planned: Plan, *_: object, **__: object) -> None:
        raise BadInputError(f"planned for {planned.host}")

    monkeypatch.setattr("orchestrator.run.execute_plan", stop)
    scenario = str(ROOT / "scenarios" / "quickstart.yaml")
    for words, host in ((["--connect", "lab"], "lab"), ([], "local")):
        with pytest.raises(SystemExit):
            main(["run", scenario, "--results", str(tmp_path), *words])
        assert f"planned for {host}\n" in capsys.readouterr().err

"""Trials side by side: within the budget, each in a process of its own, ended with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import host_with, trial_plan
from played import Played
from test_execute import plan as steps_plan

from orchestrator.cli.signals import stop_at_signals
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError
from orchestrator.host.runtime import leftovers, remove
from orchestrator.host.shell import HostShell
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import TrialSpec
from orchestrator.records.events import TrialEnd, of_kind
from orchestrator.run import worker
from orchestrator.run.budget import Budget
from orchestrator.run.parallel import Ended, ParallelRunner, TrialTask
from orchestrator.run.unit import Unit
from orchestrator.store import read_events

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
# A worker that writes the folder of a trial: argv is the folder, the outcome, and how long it takes.
_WORKER = """
import json, signal, subprocess, sys, time
from pathlib import Path
from orchestrator.records.events import TrialEnd
from orchestrator.store import TrialWriter
folder, outcome, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
writer = TrialWriter(folder, folder.name)
def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as stopped_by_signals() does: it may come again
    writer.record(TrialEnd(t_ns=1, outcome="interrupted"))
    writer.close()
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print(json.dumps({"text": "began"}), flush=True)
print("no json", flush=True)
print(json.dumps({"learned": {"second_level": "NPT"}}), flush=True)
time.sleep(seconds)
if outcome == "leaves":  # a process that keeps its standard output open
    subprocess.Popen(["sleep", "20"], stderr=subprocess.DEVNULL, start_new_session=True)
    outcome = "completed"
if outcome == "is killed":
    import os
    from orchestrator.host.runtime import runtime_folder
    held = runtime_folder(Path("/r"))
    folder = held.__enter__()
    if seconds:
        (folder / "setting-thp-0.json").touch()
    program = "import sys, time; time.sleep(60)"
    subprocess.Popen(["qemu-system-x86_64", "-c", program, f"{folder}/disk"], executable=sys.executable,
                     stdout=subprocess.DEVNULL, start_new_session=True)
    os.kill(os.getpid(), signal.SIGKILL)
if outcome == "dies":
    sys.exit("what went wrong")
error = "" if outcome == "completed" else "it broke"
writer.record(TrialEnd(t_ns=1, outcome=outcome, error=error, hint="look"))
writer.close()
"""


class Watching:
    """Notes what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.learned: list[object] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trial(self, trial_id: str, number: int, total: int) -> None:
        self.notes.append(f"{trial_id} {number}/{total}")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def plan(trial_id: str, memory: int = GIB, vcpus: int = 1, **more: object) -> TrialSpec:
    return trial_plan(trial_id, machine={"memory": memory, "vcpus": vcpus}, **more)


def test_memory_and_cores_bound_how_many_run() -> None:
    budget = Budget(memory_bytes=3 * GIB, cores=3)
    assert budget.take(plan("a"))
    assert budget.take(plan("b"))
    assert not budget.take(plan("c")), "QEMU itself takes some, too"
    budget.give_back(plan("a"))
    assert not budget.take(plan("d", vcpus=3))
    assert budget.take(plan("d", vcpus=2))
    assert Budget(GIB, 1).take(plan("large", memory=64 * GIB, vcpus=64)), "one may always run"


def test_of_a_nested_host_it_is_the_host_that_counts() -> None:
    nested = plan("a", host="nested", host_machine={"memory": 4 * GIB, "vcpus": 2})
    budget = Budget(8 * GIB, 8)
    assert budget.take(nested)
    assert budget.cores == 6
    assert budget.memory_bytes < 4 * GIB


def workers(
    run_dir: Path, watching: Any, outcomes: dict[str, tuple[str, float]], cores: int = 2
) -> ParallelRunner:
    places = ProjectPaths(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", run_dir / "cache")
    made = ParallelRunner(
        run_dir, places, watching, None, Budget(64 * GIB, cores), learn=watching.learned.append
    )

    def argv(task: TrialTask) -> list[str]:
        outcome, seconds = outcomes[task.name]
        return [sys.executable, "-c", _WORKER, str(run_dir / task.folder), outcome, str(seconds)]

    made.argv = argv  # type: ignore[method-assign]  # a worker that boots nothing
    return made


@pytest.mark.slow
def test_all_are_run_two_at_once_and_each_tells_how_it_ended(tmp_path: Path) -> None:
    watching = Watching()
    outcomes = {"a": ("completed", 0.5), "b": ("panic", 0.0), "c": ("dies", 0.0), "d": ("completed", 0.0)}
    made = workers(tmp_path, watching, outcomes)
    ended = {one.name: one for one in made.run([TrialTask(plan(name)) for name in outcomes])}
    assert {name: one.outcome for name, one in ended.items()} == {
        "a": "completed",
        "b": "panic",
        "c": "failed",
        "d": "completed",
    }
    assert ended["a"].error is None
    assert ended["b"].error is not None
    assert (ended["b"].error.brief, ended["b"].error.hint) == ("it broke", "look")
    assert ended["c"].error is not None
    assert ended["c"].error.details == "what went wrong"
    assert made.most_at_once == 2
    assert "a: began" in watching.notes
    assert watching.learned == [{"second_level": "NPT"}] * 4, "what a nested host is"
    assert not any("no json" in note for note in watching.notes)


@pytest.mark.slow
def test_what_a_worker_leaves_that_is_killed_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what it noted of the host, which `clean` puts right, and which stays with the folder."""
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    outcomes = {"a": ("is killed", 0.0), "b": ("is killed", 0.01)}
    made = workers(tmp_path, Watching(), outcomes, cores=1)
    ended = {one.name: one for one in made.run([TrialTask(plan(name)) for name in outcomes])}
    (left,) = leftovers()
    assert [one.error.hint for one in ended.values() if one.error] == ["", "orchestrator clean"]
    assert (left.folder / "setting-thp-0.json").exists()
    remove(left.folder)
    assert [one.error.brief for one in ended.values() if one.error] == [
        f"the process of {name} ended with code -9" for name in outcomes
    ]


@pytest.mark.slow
def test_a_worker_whose_output_somebody_keeps_open_ends_and_others_follow(tmp_path: Path) -> None:
    outcomes = {"a": ("leaves", 0.0), "b": ("leaves", 0.0), "c": ("completed", 0.0)}
    made = workers(tmp_path, Watching(), outcomes, cores=1)
    assert [one.outcome for one in made.run([TrialTask(plan(name)) for name in outcomes])] == [
        "completed"
    ] * 3
    assert made.most_at_once == 1


def test_boots_run_one_to_a_core_and_write_beside_the_trials(tmp_path: Path) -> None:
    watching = Watching()
    outcomes = {"guest-k.1": ("completed", 0.3), "guest-k.2": ("panic", 0.0)}
    made = workers(tmp_path, watching, outcomes)
    tasks = [TrialTask(plan(f"t{boot[-1]}", vcpus=2), boot) for boot in outcomes]
    assert {one.name: one.outcome for one in made.run(tasks)} == {
        "guest-k.1": "completed",
        "guest-k.2": "panic",
    }
    assert made.most_at_once == 2, "guests of two vCPUs each, on two cores"
    assert sorted(path.name for path in (tmp_path / "boots").iterdir()) == list(outcomes)
    assert not (tmp_path / "trials").exists()


def test_the_budget_is_that_of_the_host_where_guests_run() -> None:
    there = host_with(
        {
            "/proc/meminfo": "MemTotal:  9000000 kB\nMemAvailable:    4194304 kB\n",
            "/proc/cpuinfo": "processor\t: 0\nmodel name\t: x\nprocessor\t: 1\n",
        }
    )
    somewhere: Any = object()
    there.target = somewhere
    assert Budget.of(there) == Budget(4 * GIB, 2)
    here = Budget.of(HostShell())
    assert 0 < here.cores <= (os.cpu_count() or 1)
    assert here.memory_bytes > 0


_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_parallel import Watching, plan, workers
from orchestrator.run.parallel import TOGETHER, TrialTask
folder = Path(sys.argv[2])
made = workers(folder, Watching(), {"a": ("completed", 60.0)})
alone = made.argv
made.argv = lambda task: [*TOGETHER, *alone(task)]
list(made.run([TrialTask(plan("a"))]))
"""


@pytest.mark.slow
def test_what_a_killed_run_had_started_ends_by_itself(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", _RUN, str(Path(__file__).parent), str(tmp_path)])
    events = tmp_path / "trials" / "a" / "events.jsonl"
    wait_for(lambda: events.exists() or None, Deadline(30), every=0.05)
    (started,) = psutil.Process(run.pid).children()
    time.sleep(0.3)  # it waits for SIGTERM by then
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs([started], timeout=20)
    assert not alive
    assert "interrupted" in events.read_text()


def test_a_worker_whose_run_is_gone_already_starts_nothing(tmp_path: Path, trials: Played) -> None:
    planned = steps_plan("  - wait: {time: 1s}\n")
    (tmp_path / "plan.json").write_text(planned.to_json())
    trial, other = (one.id for one in planned.trials[:2])
    words = [str(tmp_path), trial, str(ROOT / "guests"), "tcg", "", str(os.getpid()), ""]  # not our parent
    assert worker.main(words, trials) == 130
    assert (trials.ran, trials.begun) == ([], [])
    words[1], words[5] = other, str(os.getppid())
    assert worker.main(words, trials) == 0
    assert trials.ran == [other]


def test_what_fails_behind_a_trial_that_has_ended_is_reported(
    tmp_path: Path, trials: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder says how it ended, and that stays so."""
    planned = steps_plan("  - wait: {time: 1s}\n")
    (tmp_path / "plan.json").write_text(planned.to_json())
    execute = Unit.execute_from_here

    def execute_and_fail(*words: Any, **more: Any) -> None:
        execute(*words, **more)
        raise InfrastructureError("/var/tmp/x could not be removed")

    monkeypatch.setattr(Unit, "execute_from_here", execute_and_fail)
    words = [str(tmp_path), planned.trials[0].id, str(ROOT / "guests"), "tcg", "", str(os.getppid()), ""]
    assert worker.main(words, trials) == 3
    assert "could not be removed" in capsys.readouterr().err
    (end,) = of_kind(read_events(tmp_path / "trials" / planned.trials[0].id), TrialEnd)
    assert end.outcome == "completed"


def test_an_interrupt_ends_the_workers_and_waits_for_them(tmp_path: Path) -> None:
    outcomes = {"a": ("completed", 0.0), "b": ("completed", 60.0)}
    made = workers(tmp_path, Watching(), outcomes)
    began = time.monotonic()
    ended: list[Ended] = []

    def interrupt_after_the_first() -> None:
        for one in made.run([TrialTask(plan("a")), TrialTask(plan("b"))]):
            ended.append(one)
            while not (tmp_path / "trials" / "b" / "events.jsonl").exists():
                time.sleep(0.01)
            time.sleep(0.3)  # it waits for SIGTERM by then
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), stop_at_signals():
        interrupt_after_the_first()
    assert time.monotonic() - began < 20
    assert [one.name for one in ended] == ["a"]
    assert "interrupted" in (tmp_path / "trials" / "b" / "events.jsonl").read_text()
    assert not [child for child in psutil.Process().children() if _WORKER in child.cmdline()]

"""A trial by itself: whole or not there, of the very files that its plan names; and such trials as a run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from played import PROGRESS, ROOT, Played, places
from test_execute import plan

from orchestrator.cli import main
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, GuestPanicError, InfrastructureError
from orchestrator.host.runtime import runtime_folder
from orchestrator.host_kinds import host_kind
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import Plan
from orchestrator.records.meta import RunMeta
from orchestrator.records.unit import UnitRecord
from orchestrator.run.execute import execute_plan, resume_run
from orchestrator.run.gather import gather, most_at_once
from orchestrator.run.inputs import with_inputs
from orchestrator.run.unit import Unit, execute_alone
from orchestrator.store import open_run

STEPS = "  - start: {workload: sparse-map}\n"


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return with_inputs(plan(STEPS), places(tmp_path))


def unit(planned: Plan, folder: Path, trials: Played) -> Unit:
    return Unit.of(planned, places(folder), PROGRESS, None, trials)


def test_a_trial_has_its_folder_with_where_it_ran(tmp_path: Path, planned: Plan, trials: Played) -> None:
    trial = planned.trials[2].id
    made = execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into")
    assert (made.directory, made.outcome, made.error) == (tmp_path / "into" / trial, "completed", None)
    assert [path.name for path in (tmp_path / "into").iterdir()] == [trial]
    assert {path.name for path in made.directory.iterdir()} >= {"events.jsonl", "observations.parquet"}
    record = json.loads((made.directory / "unit.json").read_text())
    assert record["plan_sha256"] == planned.sha256
    assert record["host"] == socket.gethostname()
    assert record["facts"]["accel"] == "tcg"
    assert record["facts"]["hypervisor"] == {"qemu": "10.0.2"}
    with pytest.raises(BadInputError, match="a trial is written once"):
        execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into")
    assert trials.ran == [trial]


def test_a_trial_says_on_which_host_it_ran(tmp_path: Path, planned: Plan, trials: Played) -> None:
    trial = planned.trials[0].id
    made = execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into", "node-7:1")
    record = UnitRecord.model_validate_json((made.directory / "unit.json").read_bytes())
    begin = json.loads((made.directory / "events.jsonl").read_text().splitlines()[0])
    assert (record.host_name, begin["host"]) == ("node-7:1", "node-7:1")
    older = record.model_copy(update={"host": ""})
    assert older.host_name == socket.gethostname(), "of an older version"
    for name in ("", "a b", "a,b", "x" * 65, "a\x1b[0m", "-a"):
        with pytest.raises(BadInputError, match="is no name for a host"):
            execute_alone(unit(planned, tmp_path, trials), planned.trials[1].id, tmp_path / "into", name)
    assert trials.ran == [trial]


def test_a_machine_that_ssh_reaches_has_a_name_of_its_own() -> None:
    here = socket.gethostname()
    assert host_kind("local").machine_name == here
    assert host_kind("nested").machine_name == here
    assert host_kind("qemu:///system").machine_name == here
    assert host_kind("qemu+ssh://root@node1/system").machine_name == "node1"


def test_one_that_failed_is_kept_and_one_that_was_interrupted_is_not(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    panics, stopped, fails = (trial.id for trial in planned.trials[:3])
    trials.ends = {panics: GuestPanicError("it panicked"), stopped: KeyboardInterrupt()}
    made = execute_alone(unit(planned, tmp_path, trials), panics, tmp_path / "into")
    assert made.outcome == "panic"
    with pytest.raises(KeyboardInterrupt):
        execute_alone(unit(planned, tmp_path, trials), stopped, tmp_path / "into")

    class Imageless(Played):
        def image(self, *_: object) -> Any:
            raise InfrastructureError("no image")

    with pytest.raises(InfrastructureError, match="no image"):
        execute_alone(unit(planned, tmp_path, Imageless()), fails, tmp_path / "into")
    with pytest.raises(BadInputError, match="no trial is called 'x'"):
        execute_alone(unit(planned, tmp_path, trials), "x", tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == [panics]


def test_the_second_of_two_units_of_a_trial_changes_nothing(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    trial = planned.trials[0].id

    class Slower(Played):
        """Another is there first."""

        def run_trial(self, *words: Any) -> Any:
            execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into")
            return super().run_trial(*words)

    with pytest.raises(BadInputError, match="exists"):
        execute_alone(unit(planned, tmp_path, Slower()), trial, tmp_path / "into")
    assert trials.ran == [trial]
    assert [path.name for path in (tmp_path / "into").iterdir()] == [trial]


@pytest.fixture
def project(tmp_path: Path) -> ProjectPaths:
    for folder in ("guests", "workloads", "playbooks"):
        shutil.copytree(ROOT / folder, tmp_path / "there" / folder)
    there = tmp_path / "there"
    return ProjectPaths(there / "guests", there / "workloads", there / "playbooks", tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("workloads/sparse-map/workload.yaml", "changed"),
        ("workloads/common/holder.h", "changed"),
        ("guests/debian-13.yaml", "changed"),
        ("guests/programs/guest-settings.sh", "gone"),
        ("guests/programs/another.sh", "new"),
        ("playbooks/guest.yaml", "changed"),
        ("workloads/redis/workload.yaml", "not ours"),
        ("guests/kvm-host.yaml", "not ours"),
    ],
)
def test_files_that_are_not_those_of_the_plan_are_refused_with_both_hashes(
    project: ProjectPaths, planned: Plan, trials: Played, file: str, change: str
) -> None:
    path = project.guests.parent / file
    if change == "gone":
        path.unlink()
    else:
        path.write_text((path.read_text() if path.exists() else "") + "# another\n")
    if change == "not ours":  # what the trials do not read may be what it likes
        Unit.of(planned, project, PROGRESS, None, trials)
        return
    with pytest.raises(BadInputError, match="not those") as refused:
        Unit.of(planned, project, PROGRESS, None, trials)
    (line,) = refused.value.details.splitlines()
    then, now = planned.files.get(file, "not there"), line.split()[-2]
    assert line.startswith(f"{file}: {then} in the plan, ")
    assert line.endswith("not there here" if change == "gone" else " here")
    assert then != now


def test_a_kernel_that_was_built_anew_is_another(tmp_path: Path, trials: Played) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(b"one")
    made = plan(STEPS)
    arms = tuple(arm.model_copy(update={"kernel": str(kernel)}) for arm in made.arms)
    planned = with_inputs(made.model_copy(update={"arms": arms}), places(tmp_path))
    Unit.of(planned, places(tmp_path), PROGRESS, None, trials)
    kernel.write_bytes(b"two")
    with pytest.raises(BadInputError) as refused:
        Unit.of(planned, places(tmp_path), PROGRESS, None, trials)
    assert refused.value.details.startswith(f"{kernel}: {planned.files[str(kernel)]} in the plan")


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "summary.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "run"} for row in csv.DictReader(file)]


def test_gathered_trials_are_the_run_that_would_have_been(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    ids = [trial.id for trial in planned.trials]
    trials.ends = {ids[3]: GuestPanicError("it panicked")}
    run = execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    for number, trial in enumerate(reversed(ids)):
        execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / f"into{number % 2}")
    folders = [tmp_path / "into0", tmp_path / "into1"]
    (folders[0] / ".left.01234567.unit").mkdir()
    (folders[1] / "notes").mkdir()
    result = gather(planned, folders, tmp_path / "gathered")
    assert rows(result.directory) == rows(run.directory)
    assert [summary.trial for summary in result.analysis.summaries] == ids
    assert result.exit_code == run.exit_code == 3
    assert [trial for trial, _ in result.errors] == [ids[3]]
    gathered, local = open_run(result.directory), open_run(run.directory)
    assert gathered.plan == local.plan
    for fact in ("schema_version", "status", "accel", "hypervisor", "image", "host", "versions"):
        assert getattr(gathered.meta, fact) == getattr(local.meta, fact)
    assert gathered.meta.trials_at_once == 1


def test_a_trial_that_comes_twice_counts_once_and_one_that_is_missing_is_resumed(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    ids = [trial.id for trial in planned.trials]
    trials.ends = {ids[0]: InfrastructureError("the disk was full")}
    for trial in ids[:2]:
        execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "first")
    trials.ends = {ids[1]: GuestPanicError("a second time")}
    for trial in ids[:3]:
        execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "second")
    result = gather(planned, [tmp_path / "first", tmp_path / "second"], tmp_path / "run")
    assert {row["trial"]: row["outcome"] for row in rows(result.directory)} == dict.fromkeys(
        ids[:3], "completed"
    )
    assert [(trial, error.brief) for trial, error in result.errors] == [(ids[3], "no folder has it")]
    assert (result.exit_code, open_run(result.directory).status) == (3, "failed")
    trials.ran = []
    again = resume_run(result.directory, places(tmp_path), PROGRESS, machinery=trials)
    assert (trials.ran, again.exit_code) == ([ids[3]], 0)


def test_trials_of_another_plan_or_of_other_versions_are_not_gathered(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    ids = [trial.id for trial in planned.trials]
    other = planned.model_copy(update={"seed": planned.seed + 1})
    execute_alone(unit(other, tmp_path, trials), ids[0], tmp_path / "other")
    with pytest.raises(BadInputError, match="of another plan") as refused:
        gather(planned, [tmp_path / "other"], tmp_path / "run")
    assert planned.sha256 in refused.value.details
    assert other.sha256 in refused.value.details
    execute_alone(unit(planned, tmp_path, trials), ids[0], tmp_path / "into")
    trials.host_facts = {"hypervisor": {"qemu": "7.2"}}
    execute_alone(unit(planned, tmp_path, trials), ids[1], tmp_path / "into")
    with pytest.raises(BadInputError, match="another hypervisor"):
        gather(planned, [tmp_path / "into"], tmp_path / "run")
    (tmp_path / "into" / ids[1] / "unit.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"unit\.json: damaged"):
        gather(planned, [tmp_path / "into"], tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no trial of this plan"):
        gather(planned, [tmp_path / "empty"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_hosts_are_named_and_their_ssh_keys_do_not_matter(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    """Both have one hostname, as containers may; their own names keep them apart, and QEMU may differ."""
    ids = [trial.id for trial in planned.trials]
    for number, trial in enumerate(ids):
        trials.host_facts = {"hypervisor": {"qemu": f"10.0.{number % 2}"}}
        execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into", f"node{number % 2}")
    elsewhere = tmp_path / "into" / ids[0] / "unit.json"
    record = json.loads(elsewhere.read_text())
    record["facts"]["image"]["key"] = "another"
    record["facts"]["host"] |= {"cpu": "another CPU", "microcode": "0x7"}
    elsewhere.write_text(json.dumps(record))
    result = gather(planned, [tmp_path / "into"], tmp_path / "run")
    gathered = open_run(result.directory)
    assert list(gathered.meta.hosts) == ["node0", "node1"]
    here = gathered.meta.hosts["node1"]
    assert (here.hostname, here.qemu) == (socket.gethostname(), "10.0.1")
    assert gathered.meta.hosts["node0"].cpu == f"another CPU and {here.cpu}", "it changed meanwhile"
    assert [row["host"] for row in rows(result.directory)] == ["node0", "node1"] * 2
    assert [trial.host for trial in gathered.trials] == ["node0", "node1"] * 2
    (condition,) = (one for one in result.analysis.conditions.rows if one.name == "hosts")
    assert condition.value == "node0 (2 trials), node1 (2 trials)"
    comparison = result.analysis.verdicts.comparison
    assert comparison is not None
    note, *_ = comparison.notes
    assert note.startswith("trials of 2 hosts (node0, node1): compared within each")
    for what in (f"CPU: another CPU and {here.cpu} (node0), {here.cpu} (node1)", "QEMU: 10.0.0 (node0)"):
        assert what in note
    assert "kernel" not in note, "that is the same"


def test_one_host_may_not_change_its_qemu_between_trials_and_no_two_their_acceleration(
    tmp_path: Path, planned: Plan, trials: Played
) -> None:
    first, second, third, _ = (trial.id for trial in planned.trials)
    execute_alone(unit(planned, tmp_path, trials), first, tmp_path / "into", "node0")
    trials.host_facts = {"hypervisor": {"qemu": "7.2"}}
    execute_alone(unit(planned, tmp_path, trials), second, tmp_path / "into", "node0")
    with pytest.raises(BadInputError, match="another hypervisor"):
        gather(planned, [tmp_path / "into"], tmp_path / "run")
    shutil.rmtree(tmp_path / "into" / second)
    trials.accel = "kvm"
    execute_alone(unit(planned, tmp_path, trials), third, tmp_path / "into", "node1")
    with pytest.raises(BadInputError, match="another accel"):
        gather(planned, [tmp_path / "into"], tmp_path / "run")


def test_hosts_as_an_older_gather_wrote_them_still_open() -> None:
    meta = RunMeta.model_validate(
        {"schema_version": 3, "hosts": [{"hostname": "one", "name": "this machine", "cpus": 2}]}
    )
    assert meta.hosts["one"].known() == {"hostname": "one", "cpus": 2}
    assert RunMeta.model_validate({"schema_version": 3}).facts() == {"schema_version": 3}


def test_what_is_no_file_of_a_trial_is_not_gathered(tmp_path: Path, planned: Plan, trials: Played) -> None:
    trial = planned.trials[0].id
    made = execute_alone(unit(planned, tmp_path, trials), trial, tmp_path / "into").directory
    (made / "console.log").symlink_to("/etc/passwd")
    (made / "another").write_text("of no one")
    (made / "snapshots" / "01-a.npz").symlink_to("/etc/passwd")
    result = gather(planned, [tmp_path / "into"], tmp_path / "run")
    kept = {path.name for path in (result.directory / "trials" / trial).rglob("*")}
    assert kept == {"events.jsonl", "observations.parquet", "unit.json", "snapshots"}


def test_how_many_ran_at_once_is_known_of_each_host(tmp_path: Path, planned: Plan, trials: Played) -> None:
    @dataclass
    class Times:
        """As much of a record."""

        boot_id: str
        began_ns: int
        ended_ns: int

        @property
        def writer(self) -> Times:
            return self

    def most(*times: tuple[str, int, int]) -> int:
        records: Any = [Times(*one) for one in times]
        return most_at_once(records)

    assert most(("a", 0, 10), ("a", 10, 20), ("b", 5, 15)) == 1
    assert most(("a", 0, 10), ("a", 9, 20), ("a", 19, 30), ("b", 0, 30)) == 2


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from played import PROGRESS, Played, places
from test_unit import Waiting
from orchestrator.cli.signals import stop_at_signals
from orchestrator.plan import Plan
from orchestrator.run.unit import Unit, execute_alone
folder = Path(sys.argv[2])
planned = Plan.from_json((folder / "plan.json").read_bytes())
with stop_at_signals():
    execute_alone(Unit.of(planned, places(folder), PROGRESS, None, Waiting()), sys.argv[3], folder / "into")
"""


class Waiting(Played):
    """Has a runtime folder, and never ends."""

    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        return runtime_folder(run_dir)

    def run_trial(self, *_: object) -> Any:
        signal.pause()


@pytest.fixture
def waiting(
    tmp_path: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path / "runtime"))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plan.json").write_text(planned.to_json())
    words = [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(tmp_path), planned.trials[0].id]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: list(tmp_path.glob("into/.*/events.jsonl")) or None, Deadline(60), every=0.05)
        yield process
        process.kill()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path, waiting: subprocess.Popen[bytes]) -> None:
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(60) != 0
    assert list((tmp_path / "into").iterdir()) == []
    assert not list((tmp_path / "runtime").glob("*/*"))


@pytest.mark.slow
def test_kill_leaves_no_trial_and_clean_removes_what_there_is(
    tmp_path: Path, waiting: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def clean(*words: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as end:
            main(["clean", "--results", str(tmp_path / "results"), "--json", *words])
        assert not end.value.code
        said = json.loads(capsys.readouterr().out)
        assert isinstance(said, dict)
        return said

    assert clean()["unfinished_trials"] == [], "it goes on"
    waiting.kill()
    waiting.wait()
    (left,) = (tmp_path / "into").iterdir()
    assert left.name.startswith("."), "no folder of a trial"
    assert clean("--dry-run")["unfinished_trials"] == [str(left)]
    assert left.exists()
    assert clean()["unfinished_trials"] == [str(left)]
    assert list((tmp_path / "into").iterdir()) == []
    assert not list((tmp_path / "runtime").glob("*/*"))


def test_clean_believes_no_runtime_folder_that_names_another_folder(tmp_path: Path) -> None:
    from orchestrator.run.unit import unfinished_unit

    ours = tmp_path / ".a-01.01234567.unit"
    ours.mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / ".b-01.01234567.unit").symlink_to(tmp_path / "precious")
    assert unfinished_unit(str(ours)) == ours
    for name in ("precious", ".b-01.01234567.unit", ".c-01.01234567.unit"):
        assert unfinished_unit(str(tmp_path / name)) is None
    assert unfinished_unit(os.path.relpath(ours)) is None


def test_plan_writes_what_trial_takes_and_gather_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trials: Played
) -> None:
    monkeypatch.setattr("orchestrator.run.machinery.RealMachinery", lambda: trials)
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def typed(*words: object) -> int:
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        return int(end.value.code or 0)

    scenario = ROOT / "scenarios" / "boots.yaml"
    assert typed("plan", scenario, "-o", "plan.json", "--repeats", 1, "--cold") == 0
    planned = Plan.from_json(Path("plan.json").read_bytes())
    assert {"guests/debian-13.yaml", "playbooks/guest.yaml"} <= set(planned.files)
    Path("notes.txt").write_text("mine")
    assert typed("plan", scenario, "-o", "notes.txt") == 2
    capsys.readouterr()
    for trial in planned.trials:
        assert typed("trial", "plan.json", trial.id, "--into", "into", "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["trial"], said["outcome"], said["exit_code"]) == (trial.id, "completed", 0)
    assert typed("trial", "plan.json", planned.trials[0].id, "--into", "into") == 2, "it is there"
    assert typed("trial", "nowhere.json", "a", "--into", "into") == 2
    trials.ends = {planned.trials[0].id: GuestPanicError("it panicked")}
    assert typed("trial", "plan.json", planned.trials[0].id, "--into", "again") == 3
    trials.ends = {planned.trials[0].id: KeyboardInterrupt()}
    assert typed("trial", "plan.json", planned.trials[0].id, "--into", "third") == 130
    older = planned.model_copy(update={"files": {}})
    Path("older.json").write_text(older.to_json())
    assert typed("trial", "older.json", planned.trials[0].id, "--into", "fourth") == 2
    assert "older version" in capsys.readouterr().err
    moved = planned.trials[0].id
    shutil.rmtree(Path("into") / moved)
    trials.ends = {}
    assert typed("trial", "plan.json", moved, "--into", "into", "--host-name", "elsewhere") == 0
    capsys.readouterr()
    typed("gather", "plan.json", "into", "--results", "results", "--json")
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert "trials of 2 hosts" in printed.err
    assert "elsewhere" in printed.err
    assert said["trials_done"] == len(planned.trials)
    assert said["time"] is None, "that of gathering is not that of the trials"

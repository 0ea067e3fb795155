"""Trials as tasks of a Slurm that is played; tests/e2e/test_slurm.py has a real one."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from played import PROGRESS, Played, places
from test_execute import plan

from orchestrator import slurm
from orchestrator.cli import main
from orchestrator.errors import BadInputError, GuestPanicError, InfrastructureError
from orchestrator.plan import Plan
from orchestrator.run.execute import RunResult, execute_plan, resume_run
from orchestrator.run.inputs import with_inputs
from orchestrator.run.unit import Unit, execute_alone
from orchestrator.slurm import Commands, Following, Site, array, resume_by_slurm, run_by_slurm
from orchestrator.slurm.queue import Queue, Task
from orchestrator.slurm.request import OWN_BYTES, script, words
from orchestrator.store import open_run

STEPS = "  - wait: {time: 1s}\n"
DONE, PENDING = Task("COMPLETED", "None", "n1"), Task("PENDING", "Resources")
TIMEOUT = Task("TIMEOUT", "TimeLimit", "n1")


@dataclass
class FakeSlurm(Queue):
    """Executes the trials of an array at its second look, but for those in `ends`, which it ends so.

    `looks` is called with the number of each look.
    """

    folder: Path
    trials: Played
    ends: dict[str, Task] = field(default_factory=dict)
    forgets: set[str] = field(default_factory=set)
    past: dict[str, Task] = field(default_factory=dict)
    looks: Callable[[int], None] = lambda _: None
    submitted: list[list[str]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    over: dict[int, Mapping[int, Task]] = field(default_factory=dict)
    looked: int = 0

    def check(self) -> None:
        pass

    def submit(self, asked: Sequence[str]) -> int:
        self.submitted.append(list(asked))
        self.looked = 0
        return len(self.submitted)

    def ids(self, job: int) -> list[str]:
        return (Path(self.submitted[job - 1][-1]).parent / "trials").read_text().split()

    def tasks(self, job: int) -> Mapping[int, Task]:
        self.looked += 1
        self.looks(self.looked)
        ids = dict(enumerate(self.ids(job), start=1))
        if job in self.cancelled:
            return dict.fromkeys(ids, Task("CANCELLED", "None"))
        if job in self.over:
            return self.over[job]
        if self.looked == 1:
            return dict.fromkeys(ids, PENDING)
        run = Path(self.submitted[job - 1][-1]).parents[2]
        planned = Plan.from_json((run / "plan.json").read_bytes())
        for index, trial in ids.items():
            if trial in self.ends:
                (run / "slurm" / str(job) / f"{job}_{index}.log").write_text(
                    "x" * 9999 + "\ndoing\x1b[2Jwell\n"
                )
                # What is left where SIGTERM did not do.
                (run / "trials" / f".{trial}.01234567.unit").mkdir(exist_ok=True)
            elif not (run / "trials" / trial).exists():
                unit = Unit.of(planned, places(self.folder), PROGRESS, None, self.trials)
                execute_alone(unit, trial, run / "trials")
        known = {index: trial for index, trial in ids.items() if trial not in self.forgets}
        now = {index: self.ends.get(trial, DONE) for index, trial in known.items()}
        if all(task.ended for task in now.values()):
            self.over[job] = now
        return now

    def history(self, job: int) -> Mapping[int, Task]:
        ids = enumerate(self.ids(job), start=1)
        return {index: self.past[trial] for index, trial in ids if trial in self.past}

    def latest(self, name: str) -> int | None:
        jobs = [job for job, asked in enumerate(self.submitted, start=1) if f"--job-name={name}" in asked]
        return max(jobs, default=None)

    def cancel(self, job: int) -> None:
        self.cancelled.append(job)


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    return with_inputs(plan(STEPS), places(tmp_path))


@pytest.fixture
def queue(tmp_path: Path, trials: Played) -> FakeSlurm:
    return FakeSlurm(tmp_path, trials)


def run(planned: Plan, queue: FakeSlurm, run_dir: Path, site: Site = Site()) -> RunResult:  # noqa: B008  # frozen
    return run_by_slurm(planned, places(queue.folder), run_dir, site, following(queue))


def resume(queue: FakeSlurm, run_dir: Path) -> RunResult:
    return resume_by_slurm(run_dir, places(queue.folder), Site(), following(queue))


def following(queue: FakeSlurm) -> Following:
    return Following(queue, PROGRESS, 60, every_seconds=0)


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "summary.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "run"} for row in csv.DictReader(file)]


def failures(result: RunResult) -> dict[str, str]:
    return {trial: error.brief for trial, error in result.errors}


def test_an_array_makes_the_run_that_would_have_been(
    tmp_path: Path, planned: Plan, trials: Played, queue: FakeSlurm
) -> None:
    ids = [trial.id for trial in planned.trials]
    trials.ends = {ids[2]: GuestPanicError("it panicked")}
    local = execute_plan(planned, places(tmp_path), tmp_path / "local", PROGRESS, machinery=trials)
    made = run(planned, queue, tmp_path / "run")
    assert rows(made.directory) == rows(local.directory)
    assert len(rows(made.directory)) == 4
    assert made.exit_code == local.exit_code == 3
    assert list(failures(made)) == list(failures(local)) == [ids[2]]
    ours, theirs = open_run(made.directory), open_run(local.directory)
    assert ours.plan == theirs.plan
    for fact in (
        "schema_version",
        "status",
        "accel",
        "hypervisor",
        "image",
        "host",
        "versions",
        "command_line",
    ):
        assert getattr(ours.meta, fact) == getattr(theirs.meta, fact)
    assert ours.meta.facts()["slurm"]["job"] == 1
    with pytest.raises(BadInputError, match="is whole"):
        resume(queue, made.directory)


def test_what_slurm_ended_is_named_with_its_words_and_done_again(
    tmp_path: Path, planned: Plan, trials: Played, queue: FakeSlurm
) -> None:
    ids = [trial.id for trial in planned.trials]
    queue.ends = {ids[1]: TIMEOUT, ids[3]: Task("OUT_OF_MEMORY", "OutOfMemory", "n2")}
    trials.ends = {ids[0]: InfrastructureError("the disk was full")}
    made = run(planned, queue, tmp_path / "run")
    assert made.exit_code == 3
    said = failures(made)
    assert said[ids[1]] == "Slurm: TIMEOUT (TimeLimit) on n1"
    assert said[ids[3]] == "Slurm: OUT_OF_MEMORY (OutOfMemory) on n2"
    assert set(said) == {ids[0], ids[1], ids[3]}
    details = dict(made.errors)[ids[1]].details
    assert "doing" in details
    assert "well" in details
    assert "\x1b" not in details
    assert len(details) < 4001
    assert [trial.id for trial in open_run(made.directory).trials] == [ids[0], ids[2]]
    assert [row["trial"] for row in rows(made.directory)] == [ids[0], ids[2]]
    queue.ends, trials.ends, trials.ran = {}, {}, []
    again = resume(queue, made.directory)
    assert (again.exit_code, again.errors) == (0, ())
    assert trials.ran == [ids[0], ids[1], ids[3]], "lost, and missing"
    assert [row["trial"] for row in rows(made.directory)] == ids
    assert (made.directory / "lost" / f"{ids[0]}.1").is_dir()


def test_ctrl_c_cancels_and_keeps_what_ended(tmp_path: Path, planned: Plan, queue: FakeSlurm) -> None:
    ids = [trial.id for trial in planned.trials]
    queue.ends = dict.fromkeys(ids[1:], Task("RUNNING", "None", "n1"))

    def interrupt(number: int) -> None:
        if number == 3 and not queue.cancelled:
            raise KeyboardInterrupt

    queue.looks = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(planned, queue, tmp_path / "run")
    assert queue.cancelled == [1]
    there = open_run(tmp_path / "run")
    assert (there.status, there.meta.exit_code) == ("interrupted", 130)
    assert there.meta.accel == "tcg", "the host of what ended is known"
    assert [row["trial"] for row in rows(tmp_path / "run")] == ids[:1]
    queue.ends = {}
    assert resume(queue, tmp_path / "run").exit_code == 0
    assert queue.ids(2) == ids[1:]


def test_an_array_that_goes_on_is_followed_and_nothing_is_submitted(
    tmp_path: Path, planned: Plan, queue: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(number: int) -> None:
        raise InfrastructureError("squeue ended with code 1")

    monkeypatch.setattr(array, "_SILENCE_SECONDS", 0.05)
    queue.looks = silent
    with pytest.raises(InfrastructureError, match="squeue ended") as lost:
        run(planned, queue, tmp_path / "run")
    assert "goes on without this" in lost.value.hint
    assert queue.cancelled == []
    queue.looks, queue.looked = lambda _: None, 0
    made = resume(queue, tmp_path / "run")
    assert made.exit_code == 0
    assert len(queue.submitted) == 1
    assert len(rows(made.directory)) == 4


def test_a_squeue_that_fails_for_a_while_is_no_end(tmp_path: Path, planned: Plan, queue: FakeSlurm) -> None:
    def fails(number: int) -> None:
        if number in {1, 2, 4}:
            raise InfrastructureError("slurmctld is started anew")

    queue.looks = fails
    assert run(planned, queue, tmp_path / "run").exit_code == 0


def test_what_does_not_end_in_time_is_cancelled(tmp_path: Path, planned: Plan, queue: FakeSlurm) -> None:
    ids = [trial.id for trial in planned.trials]
    queue.ends = {ids[3]: Task("PENDING", "BadConstraints")}
    follow = Following(queue, PROGRESS, 0.05, every_seconds=0)
    with pytest.raises(InfrastructureError, match=r"has not ended in 0 s, and was cancelled"):
        run_by_slurm(planned, places(tmp_path), tmp_path / "run", Site(), follow)
    assert queue.cancelled == [1]
    assert len(rows(tmp_path / "run")) == 3


def test_accounting_is_asked_for_what_the_queue_forgot(
    tmp_path: Path, planned: Plan, queue: FakeSlurm
) -> None:
    ids = [trial.id for trial in planned.trials]
    queue.ends = {ids[1]: TIMEOUT, ids[2]: TIMEOUT}
    queue.forgets, queue.past = {ids[1], ids[2]}, {ids[1]: Task("NODE_FAIL", "", "n3")}
    said = failures(run(planned, queue, tmp_path / "run"))
    assert said == {ids[1]: "Slurm: NODE_FAIL on n3", ids[2]: "Slurm: PENDING (Resources)"}


def test_trials_that_cannot_be_compared_are_no_run(
    tmp_path: Path, planned: Plan, trials: Played, queue: FakeSlurm
) -> None:
    ids = [trial.id for trial in planned.trials]
    queue.ends = {ids[0]: TIMEOUT}
    made = run(planned, queue, tmp_path / "run")
    queue.ends, trials.host_facts = {}, {"hypervisor": {"qemu": "7.2"}}
    with pytest.raises(BadInputError, match="another hypervisor"):
        resume(queue, made.directory)
    assert open_run(made.directory).meta.exit_code == 2


def test_a_run_that_began_here_is_gone_on_with_there_and_back(
    tmp_path: Path, planned: Plan, trials: Played, queue: FakeSlurm
) -> None:
    ids = [trial.id for trial in planned.trials]
    trials.ends = dict.fromkeys(ids[2:], InfrastructureError("the disk was full"))
    execute_plan(planned, places(tmp_path), tmp_path / "run", PROGRESS, machinery=trials)
    trials.ends, queue.ends = {}, {ids[3]: TIMEOUT}
    facts, trials.host_facts = trials.host_facts, {"hypervisor": {"qemu": "7.2"}}
    with pytest.raises(BadInputError, match="another hypervisor"):
        resume(queue, tmp_path / "run")
    (tmp_path / "run" / "trials" / ids[2]).rename(tmp_path / "another")
    trials.host_facts = facts
    assert resume(queue, tmp_path / "run").exit_code == 3
    back = resume_run(tmp_path / "run", places(tmp_path), PROGRESS, machinery=trials)
    assert back.exit_code == 0
    assert [row["trial"] for row in rows(tmp_path / "run")] == ids


def test_guests_elsewhere_are_no_tasks(tmp_path: Path, planned: Plan, queue: FakeSlurm) -> None:
    elsewhere = planned.model_copy(update={"host": "qemu+ssh://root@h/system"})
    with pytest.raises(BadInputError, match="which is not a node"):
        run(elsewhere, queue, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def asked(planned: Plan, site: Site = Site(), trials: Iterable[str] = ()) -> list[str]:  # noqa: B008  # frozen
    ids = list(trials) or [trial.id for trial in planned.trials]
    return words(planned, ids, "r.1", folder=Path("/f/100%/1"), cwd=Path("/c"), site=site)


def test_memory_and_cores_are_those_of_the_largest_trial(planned: Plan) -> None:
    small, large = planned.arms
    machine = large.machine.model_copy(update={"memory": 8 << 30, "vcpus": 3})
    uneven = planned.model_copy(update={"arms": (small, large.model_copy(update={"machine": machine}))})
    said = asked(uneven)
    (memory,) = (int(word[6:-1]) for word in said if word.startswith("--mem="))
    assert 8 << 10 < memory - (OWN_BYTES >> 20) < 9 << 10, "QEMU takes some beside its guest's RAM"
    assert "--cpus-per-task=3" in said
    (only,) = (int(word[6:-1]) for word in asked(uneven, trials=["a-01"]) if word.startswith("--mem="))
    assert only < memory


def test_a_node_has_one_trial_where_times_are_measured(planned: Plan) -> None:
    assert "--exclusive" in asked(planned)
    assert "--exclusive" not in asked(planned.model_copy(update={"times": "ignored"}))


def test_what_a_site_needs_comes_last_and_unchanged(planned: Plan) -> None:
    said = asked(planned, Site("big", 3, ("--time=90", "-A lab")))
    assert said[-4:] == ["--partition=big", "--time=90", "-A lab", "/f/100%/1/task.sh"]
    assert "--array=1-4%3" in said
    assert "--output=/f/100%%/1/%A_%a.log" in said, "its pattern, and not ours"


@pytest.mark.parametrize(
    "option",
    ["--array=1-9", "--arr=1-9", "--output=x", "-a1", "-ox", "--wrap=x", "--", "-", "", "true", "--chd=/"],
)
def test_what_is_the_run_s_to_say_is_no_option(option: str) -> None:
    with pytest.raises(BadInputError, match="cannot be given"):
        Site(options=(option,))


def test_the_script_of_a_task_has_paths_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "a b'$(touch here)`x`;\"%"
    folder.mkdir()
    (folder / "trials").write_text("first-01\nsecond-01\n")
    program = folder / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    text = script(
        folder / "plan.json", folder, folder / "trials", Site(command=program, guests=folder / "g s")
    )
    task = tmp_path / "task.sh"
    task.write_text(text)
    done = subprocess.run(
        ["/bin/sh", task],
        env={"SLURM_ARRAY_TASK_ID": "2", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    plan_file, into, guests = (str(folder / name) for name in ("plan.json", "trials", "g s"))
    expected = ["trial", plan_file, "second-01", "--into", into, "--guests-dir", guests]
    assert done.stdout.splitlines() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "task.sh"])


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Slurm's commands are scripts, each made of name and body. Returns the words of all calls so far."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str = "", body: str = "") -> list[str]:
        if name:
            (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{shlex.quote(str(log))}\n{body}\n')
            (folder / name).chmod(0o755)
        return log.read_text().splitlines() if log.exists() else []

    return make


def test_slurm_s_commands_are_called_and_read(programs: Callable[..., list[str]]) -> None:
    with pytest.raises(BadInputError, match="no sbatch and no squeue and no scancel"):
        Commands().check()
    programs("sbatch", "echo '17;cluster'")
    programs("squeue", "printf '1|RUNNING|None|n1\\n2|PENDING|Resources|\\n3|TIMEOUT|TimeLimit|n\\033[2J\\n'")
    programs(
        "sacct", "printf '17|PENDING|n\\n17_4|NODE_FAIL|n2\\n17_5|CANCELLED by 0|n3\\n17_[6-9]|PENDING|\\n'"
    )
    programs("scancel")
    slurm_itself = Commands()
    slurm_itself.check()
    assert slurm_itself.submit(["--array=1-3", "a b"]) == 17
    tasks = slurm_itself.tasks(17)
    assert [(str(task), task.waits, task.ended) for task in tasks.values()] == [
        ("RUNNING on n1", False, False),
        ("PENDING (Resources)", True, False),
        ("TIMEOUT (TimeLimit) on n\N{REPLACEMENT CHARACTER}[2J", False, True),
    ]
    assert slurm_itself.history(17) == {4: Task("NODE_FAIL", "", "n2"), 5: Task("CANCELLED", "", "n3")}
    slurm_itself.cancel(17)
    assert programs()[0] == "--parsable --array=1-3 a b"
    assert programs()[-1] == "17"


def test_a_command_that_fails_says_what_slurm_said(programs: Callable[..., list[str]]) -> None:
    programs("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Commands().tasks(17) == {}, "over, and forgotten"
    programs("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(InfrastructureError, match="squeue ended with code 1") as failed:
        Commands().tasks(17)
    assert "Unable to contact" in failed.value.details
    programs("sbatch", "echo no number")
    with pytest.raises(InfrastructureError, match="does not say which job"):
        Commands().submit([])
    programs("sacct", "exit 1")
    assert Commands().history(17) == {}, "there is no accounting"
    programs("squeue", "printf '18\\n21\\n'")
    assert Commands().latest("r.1") == 21
    programs("squeue")
    assert Commands().latest("r.1") is None


@pytest.mark.slow
def test_the_verbs(
    tmp_path: Path, queue: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "Commands", lambda: queue)
    monkeypatch.setattr(slurm, "Following", partial(Following, every_seconds=0))
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    scenario = tmp_path / "x.yaml"
    scenario.write_text(
        "version: 1\nname: x\nguest: debian-13\nmachine: {memory: 900GiB}\narms: {a: , b: }\n"
        f"steps:\n{STEPS}"
    )

    def typed(*argv: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main([*argv])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    queue.ends = {"b-01": TIMEOUT}
    code, said = typed("run", "x.yaml", "--slurm", "--slurm-at-once", "1", "--slurm-option=--time=90")
    assert code == 3, said
    assert "Slurm: TIMEOUT (TimeLimit) on n1" in said
    assert "--slurm" in said.partition("orchestrator resume")[2], "how it is gone on with"
    assert {"--array=1-2%1", "--time=90", f"--chdir={tmp_path}"} < set(queue.submitted[0])
    queue.ends = {}
    code, said = typed("resume", "last", "--slurm", "--json")
    assert code == 0, said
    assert json.loads(said[said.index("{") : said.rindex("}") + 1])["trials_done"] == 2
    assert typed("run", "x.yaml", "--slurm-partition", "p")[0] == 2, "without --slurm"
    assert typed("run", "x.yaml", "--slurm", "--connect", "lab")[0] == 2
    assert typed("run", "x.yaml", "--slurm", "--slurm-option=--wrap=x")[0] == 2
    assert typed("run", "x.yaml")[0] == 2, "so much memory is not here"

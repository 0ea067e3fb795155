"""The run folder: what a kill leaves can be read, and what cannot be meant is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from synthetic_run import ARMS, META, plan_json, write_run, write_trial

from orchestrator.errors import BadInputError
from orchestrator.observation import Observation, Origin
from orchestrator.processes import started_ticks
from orchestrator.records.events import SnapshotTaken, StepBegin, StepEnd, Unknown, of_kind
from orchestrator.run import execute, new_run_id
from orchestrator.store import (
    RunWriter,
    Status,
    TrialWriter,
    find_run,
    list_runs,
    open_run,
    read_events,
    read_observations,
)


def observation(t_ns: int, value: float | None = 1.0, gap: str = "") -> Observation:
    return Observation(t_ns, "t-01", "guest_meminfo", "PageTables", value, "bytes", gap=gap)


def batches(trial: TrialWriter, count: int) -> None:
    """Each a record batch of its own: its rows carry its number as the time."""
    for number in range(count):
        trial.observe(observation(number, float(row)) for row in range(5))
        trial.flush()


def test_observations_survive_the_way_through_parquet(tmp_path: Path) -> None:
    with TrialWriter(tmp_path / "t-01", "t-01") as trial:
        trial.observe([observation(3, 4096.5), observation(5, None, "the guest is gone")])
        predicted = Observation(6, "t-01", "host_pagemap", "n", 1.0, "bytes", Origin.PREDICTED)
        trial.observe([predicted])
    frame = read_observations(tmp_path / "t-01")
    assert list(frame["t_ns"]) == [3, 5, 6]
    assert frame["t_ns"].dtype == "int64"
    assert frame["value"].dtype == "float64"
    assert frame["value"].isna().tolist() == [False, True, False]
    assert list(frame["gap"]) == ["", "the guest is gone", ""]
    assert list(frame["origin"]) == ["measured", "measured", "predicted"]
    assert not (tmp_path / "t-01" / "observations.arrows").exists()


def test_a_reading_that_is_no_number_becomes_a_gap(tmp_path: Path) -> None:
    with TrialWriter(tmp_path / "t-01", "t-01") as trial:
        trial.observe([observation(1, float("nan")), observation(2, float("inf"))])
    frame = read_observations(tmp_path / "t-01")
    assert frame["value"].isna().all()
    assert list(frame["gap"]) == ["the reading was nan", "the reading was inf"]


@pytest.mark.slow
def test_a_stream_cut_anywhere_gives_the_batches_before_the_cut(tmp_path: Path) -> None:
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    sizes = []
    stream = trial.directory / "observations.arrows"
    for number in range(4):
        trial.observe(observation(number, float(row)) for row in range(5))
        trial.flush()
        sizes.append(stream.stat().st_size)
    whole = stream.read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    for length in range(0, len(whole) + 1, 7):
        (cut / "observations.arrows").write_bytes(whole[:length])
        frame = read_observations(cut)
        complete = sum(size <= length for size in sizes)
        assert len(frame) == 5 * complete, length
        assert sorted(set(frame["t_ns"])) == list(range(complete))
    trial.close()


_READ = """
import sys
from pathlib import Path
import pandas, psutil, pyarrow.parquet
from orchestrator.store import read_observations
before = psutil.Process().num_threads()
assert len(read_observations(Path(sys.argv[1]))) == 500
print(psutil.Process().num_threads() - before)
"""


@pytest.mark.slow
def test_reading_starts_no_thread(tmp_path: Path) -> None:
    """Where the machine gives none, pyarrow's readers wait for ever, or say that the file is damaged."""
    with TrialWriter(tmp_path / "t-01", "t-01") as trial:
        batches(trial, 100)
    words = [sys.executable, "-c", _READ, str(trial.directory)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_running_trial_can_be_read_beside_its_writer(tmp_path: Path) -> None:
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    batches(trial, 2)
    assert len(read_observations(trial.directory)) == 10
    trial.close()
    trial.close()
    assert len(read_observations(trial.directory)) == 10
    with pytest.raises(ValueError, match="closed"):
        trial.observe([observation(1)])


_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from orchestrator.observation import Observation
from orchestrator.records.events import StepBegin
from orchestrator.store import RunWriter
trial = RunWriter.create(Path(sys.argv[1]), "r1", '{"trials": [{"id": "t", "arm": "a"}]}', {}).trial("t")
trial.observe(Observation(n, "t", "s", "n", 1.0, "bytes") for n in range(600))
trial.record(StepBegin(t_ns=600, step=1))
trial.observe([Observation(601, "t", "s", "n", 1.0, "bytes")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_was_killed_is_readable_and_called_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    run = find_run("last", tmp_path)
    assert run.status is Status.KILLED
    (trial,) = run.trials
    assert trial.outcome == "unfinished"
    assert len(trial.observations()) == 600
    assert [event.name for event in trial.events] == ["step.begin"]


def test_a_kill_between_parquet_and_the_removal_of_the_stream_counts_nothing_twice(tmp_path: Path) -> None:
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    batches(trial, 2)
    stream = (trial.directory / "observations.arrows").read_bytes()
    trial.close()
    (trial.directory / "observations.arrows").write_bytes(stream)
    assert len(read_observations(trial.directory)) == 10


def test_readings_reach_the_file_without_flush_once_they_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    trial.observe([observation(1)])
    assert len(read_observations(trial.directory)) == 0
    now = 101.5
    trial.observe([observation(2)])
    assert len(read_observations(trial.directory)) == 2
    trial.observe([observation(3)])
    trial.record(StepBegin(t_ns=4, step=1))
    assert len(read_observations(trial.directory)) == 3, "what was read before a step is there with it"
    trial.close()


def test_threads_lose_nothing(tmp_path: Path) -> None:
    trial = TrialWriter(tmp_path / "t-01", "t-01")

    def work(number: int) -> None:
        for row in range(200):
            trial.observe([observation(number * 1000 + row)])
            trial.record(Unknown(t_ns=row, event="tick", given={"thread": number}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trial.close()
    assert len(set(read_observations(trial.directory)["t_ns"])) == 800
    assert len(read_events(trial.directory)) == 800


def test_events_cut_anywhere_give_the_whole_lines_before_the_cut(tmp_path: Path) -> None:
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    for number in range(3):
        trial.record(StepEnd(t_ns=number, values={"p99_seconds": float("nan")}, describe="ö\n"))
    trial.close()
    path = trial.directory / "events.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert len(read_events(trial.directory)) == whole[:length].count(b"\n")
    path.write_bytes(whole)
    assert read_events(trial.directory)[0].fields()["values"] == {"p99_seconds": None}


def test_a_bad_line_before_the_last_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"t_ns": 1, "event": "a"}\nnonsense\n{"t_ns": 2, "event": "b"}\n')
    with pytest.raises(BadInputError, match=r"events\.jsonl:2"):
        read_events(tmp_path)


def test_damage_is_told_apart_from_a_torn_end(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=1, snapshots=False)
    (directory / "plan.json").write_text('{"trials": [{"arm": "a"}]}')
    with pytest.raises(BadInputError, match=r"plan\.json"):
        _ = open_run(directory).trials
    trial = directory / "trials" / "6.12-01"
    (trial / "observations.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInputError, match="damaged"):
        read_observations(trial)
    (directory / "meta.json").write_text("{")
    with pytest.raises(BadInputError, match="not JSON"):
        open_run(directory)


def test_a_run_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError("killed here")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="killed here"):
        RunWriter.create(tmp_path, "r1", plan_json(), META)
    assert list_runs(tmp_path) == []
    assert not (tmp_path / "r1").exists()


def test_a_taken_id_is_refused(tmp_path: Path) -> None:
    RunWriter.create(tmp_path, "r1", plan_json(), META)
    with pytest.raises(BadInputError, match="exists") as taken:
        RunWriter.create(tmp_path, "r1", plan_json(), META)
    assert taken.value.hint == "type the same again: each run gets an id of its own"


def test_of_two_runs_with_one_id_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the look and the rename."""
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        RunWriter.create(tmp_path, "r1", plan_json(), META)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    monkeypatch.setattr(os, "getpid", iter(range(1000, 2000)).__next__)
    with pytest.raises(BadInputError, match="exists already"):
        RunWriter.create(tmp_path, "r1", plan_json(), META)
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]


def test_runs_that_begin_in_one_second_have_ids_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Still:
            return cls(2026, 11, 23, 15, 4, 5, tzinfo=UTC)

    monkeypatch.setattr(execute, "datetime", Still)
    ids = {new_run_id("quickstart") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("quickstart-20261123-150405-[0-9a-f]{8}", one) for one in ids)


@pytest.mark.parametrize(
    "bad", ["", "..", ".", "../x", "a/b", "/etc", "a\0b", "a\nb", "-x", ".hidden", "a" * 200]
)
def test_ids_cannot_lead_elsewhere(tmp_path: Path, bad: str) -> None:
    with pytest.raises(BadInputError):
        RunWriter.create(tmp_path, bad, plan_json(), META)
    run = RunWriter.create(tmp_path, "r1", plan_json(), META)
    with pytest.raises(BadInputError):
        run.trial(bad)
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]


def test_meta_says_how_far_the_run_came(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r1", plan_json(), META)
    assert open_run(writer.directory).status is Status.RUNNING
    writer.update_meta(accel="kvm")
    writer.finish("failed", 3)
    run = open_run(writer.directory)
    assert run.status is Status.FAILED
    assert run.meta.accel == "kvm"
    assert run.meta.exit_code == 3
    assert run.meta.finished_at >= run.meta.started_at


def test_a_run_whose_writer_is_gone_was_killed(tmp_path: Path) -> None:
    directory = write_run(tmp_path, finish=None, trials=1, snapshots=False)
    assert open_run(directory).status is Status.RUNNING
    assert open_run(directory).done == 1

    def with_writer(**changes: object) -> Status:
        meta = json.loads((directory / "meta.json").read_text())
        meta["writer"] |= changes
        copy = directory.with_name("copy")
        copy.mkdir(exist_ok=True)
        (copy / "meta.json").write_text(json.dumps(meta))
        (copy / "plan.json").write_text(plan_json())
        return open_run(copy).status

    # The number was given to another process, which began later; then no process at all; a reboot.
    began = started_ticks(os.getpid())
    assert began is not None
    assert with_writer(started_ticks=began - 1) is Status.KILLED
    assert with_writer(pid=(1 << 22) + 1) is Status.KILLED
    assert with_writer(boot_id="another") is Status.KILLED
    assert with_writer(hostname=socket.gethostname() + "-other") is Status.UNKNOWN
    assert with_writer(pid=os.getpid()) is Status.RUNNING


@pytest.mark.parametrize("version", [0, 4, "1", True, None])
def test_another_schema_version_is_named(tmp_path: Path, version: object) -> None:
    directory = write_run(tmp_path, trials=0)
    meta = json.loads((directory / "meta.json").read_text())
    (directory / "meta.json").write_text(json.dumps(meta | {"schema_version": version}))
    with pytest.raises(BadInputError, match=f"schema version {version}; this program reads 1 to 3"):
        open_run(directory)


def test_runs_are_found_by_id_beginning_last_and_path(tmp_path: Path) -> None:
    for number, run_id in enumerate(("20260101-a", "20260101-b", "20260202-c")):
        write_run(tmp_path, run_id, trials=0, started_at=f"2026-01-0{3 - number}T00:00:00+00:00")
    assert find_run("20260101-a", tmp_path).id == "20260101-a"
    assert find_run("202602", tmp_path).id == "20260202-c"
    assert find_run("last", tmp_path).id == "20260101-a", "last by the time it began"
    assert find_run(str(tmp_path / "20260101-b"), Path("nowhere")).id == "20260101-b"
    with pytest.raises(BadInputError, match="could be 2 runs"):
        find_run("20260101", tmp_path)
    for absent in ("", "..", "x", "last-one"):
        with pytest.raises(BadInputError, match="no run called"):
            find_run(absent, tmp_path)


def test_a_snapshot_event_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.npz").write_bytes(b"x")
    directory = write_run(tmp_path, trials=0)
    writer = RunWriter(directory, open_run(directory).meta)
    with writer.trial("6.12-01") as trial:
        for name in ("../../../../secret.npz", str(tmp_path / "secret.npz"), "", ".."):
            trial.record(SnapshotTaken(t_ns=1, label="x", file=name))
    (folder,) = open_run(directory).trials
    assert [folder.snapshot_path(event) for event in of_kind(folder.events, SnapshotTaken)] == [None] * 4


def test_trials_come_in_the_order_of_the_plan(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=0)
    writer = RunWriter(directory, open_run(directory).meta)
    for trial_id in ("zz-extra", "7.3-pt-reclaim-01", "6.12-01"):
        writer.trial(trial_id).close()
    with pytest.raises(BadInputError, match="written once"):
        writer.trial("zz-extra")
    run = open_run(directory)
    assert [trial.id for trial in run.trials] == ["6.12-01", "7.3-pt-reclaim-01", "zz-extra"]
    assert run.trials[0].planned.differs == {"kernel": "debian-6.12"}
    assert {trial.outcome for trial in run.trials} == {"unfinished"}
    assert run.done == 0


def test_a_trial_can_be_written_without_its_run(tmp_path: Path) -> None:
    with TrialWriter(tmp_path / "6.12-01", "6.12-01") as trial:
        write_trial(trial, ARMS[0], snapshots=False)
    assert len(read_observations(tmp_path / "6.12-01")) > 1000

"""A full disk, or an output that takes nothing: what was read is kept, and all say the same of the end."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeChannel, FakeShell
from played import Played, places
from rich.console import Console
from synthetic_run import META, plan_json, write_run
from test_execute import plan
from test_sampling import TICK, Steady, sampling

from orchestrator.cli import main, progress
from orchestrator.cli import run as run_verb
from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError, host_failure
from orchestrator.observation import Observation
from orchestrator.records.events import Mark, TrialEnd
from orchestrator.run import RunResult, execute
from orchestrator.run import sampling as sampling_module
from orchestrator.store import (
    RunWriter,
    Status,
    TrialWriter,
    atomic,
    open_run,
    read_events,
    read_observations,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
END = TrialEnd(t_ns=9, outcome="failed", error="no room", console_tail="x" * 8000)


def row(t_ns: int) -> Observation:
    return Observation(t_ns, "t-01", "a", "b", 1.0, "count")


class Full:
    """A disk that takes nothing more, but where room was kept on it and is given back."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rooms = len(list(folder.rglob(".room")))
        self.folder = folder
        write, write_bytes = os.write, Path.write_bytes
        monkeypatch.setattr(os, "write", lambda number, data: self._if_room(lambda: write(number, data)))
        monkeypatch.setattr(
            Path, "write_bytes", lambda path, data: self._if_room(lambda: write_bytes(path, data))
        )

    def _if_room(self, write: Callable[[], int]) -> int:
        if len(list(self.folder.rglob(".room"))) == self.rooms:
            raise OSError(FULL.errno, FULL.strerror)
        return write()


class _Stream:
    """A stream of which the disk takes the first half of a batch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_batch(self, _batch: object) -> None:
        with self.path.open("ab") as file:
            file.write(b"\xff\xff\xff\xff\x10\x00\x00\x00")
        raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28]")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[TrialWriter]:
    trial = TrialWriter(tmp_path / "t-01", "t-01")
    trial.observe([row(1)])
    trial.flush()
    yield trial
    trial.close()


def test_samples_until_then_are_kept_and_the_file_is_named(trial: TrialWriter) -> None:
    stream = trial.directory / "observations.arrows"
    trial._stream = _Stream(stream)
    trial.observe([row(2)])
    for _ in range(2):  # for whoever writes next as well
        with pytest.raises(OSError, match="No space left on device") as caught:
            trial.flush()
        assert caught.value.filename == str(stream)
    with pytest.raises(OSError, match="No space left"):
        trial.end(END)
    trial.close()
    assert list(read_observations(trial.directory)["t_ns"]) == [1]
    assert read_events(trial.directory) == (END,)


def test_how_a_trial_ended_has_room(trial: TrialWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.record(Mark(t_ns=1, label="before"))
    Full(trial.directory, monkeypatch)
    with pytest.raises(OSError, match="No space left on device") as caught:
        trial.record(Mark(t_ns=2, label="after"))
    assert caught.value.filename == str(trial.directory / "events.jsonl")
    trial.end(END)
    assert [event.name for event in read_events(trial.directory)] == ["mark", "trial.end"]


def test_a_trial_whose_end_cannot_be_written_is_closed(
    trial: TrialWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a run of many trials would run out of descriptors."""
    before = {path.readlink() for path in Path("/proc/self/fd").iterdir() if path.exists()}
    assert trial.directory / "events.jsonl" in before

    def full(_number: int, _data: bytes) -> int:
        raise OSError(FULL.errno, FULL.strerror)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            trial.end(END)
    assert trial.closed
    after = {path.readlink() for path in Path("/proc/self/fd").iterdir() if path.exists()}
    assert not [path for path in after if path.is_relative_to(trial.directory)]


def test_half_a_line_is_taken_back(trial: TrialWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    takes = iter([10])

    def some(number: int, data: bytes) -> int:
        most = next(takes, None)
        if most is None:
            raise OSError(FULL.errno, FULL.strerror)
        return write(number, data[:most])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", some)
        with pytest.raises(OSError, match="No space"):
            trial.record(Mark(t_ns=2, label="torn"))
    trial.record(Mark(t_ns=3, label="whole"))
    assert [event.label for event in read_events(trial.directory) if isinstance(event, Mark)] == ["whole"]


def test_how_a_run_ended_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunWriter.create(tmp_path, "r-1", plan_json(), META)
    Full(run.directory, monkeypatch)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run.update_meta(accel="tcg")
    assert caught.value.filename == str(run.directory / "meta.json")
    run.finish(Status.FAILED, 3, error="no room")
    opened = open_run(run.directory)
    assert (opened.status, opened.meta.exit_code, opened.meta.error) == (Status.FAILED, 3, "no room")
    assert not list(run.directory.rglob(".room"))


def test_what_a_library_could_not_write_is_named(tmp_path: Path) -> None:
    def write(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic.replace_file(tmp_path / "table", write)
    assert host_failure(caught.value).brief == f"{tmp_path / 'table'}: No space left on device"


def test_samples_that_cannot_be_kept_are_no_fault_of_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both threads go on, without a traceback (pytest raises what one ends with)."""
    monkeypatch.setattr(sampling_module, "PROBES", [("steady", Steady)])
    with TrialWriter(tmp_path / "t-01", "t-01") as writer:
        running = sampling(writer, FakeShell(channel=FakeChannel([TICK])))

        def observe(_rows: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "/r/observations.arrows")

        monkeypatch.setattr(writer, "observe", observe)
        with running.running([]):
            wait_for(lambda: True if running._unwritten else None, Deadline(5), every=0.01)
            with pytest.raises(InfrastructureError, match=r"/r/observations\.arrows: No space") as caught:
                running.check()
    assert caught.value.hint == "free some space: df -h /r/observations.arrows"
    assert [thread.name for thread in threading.enumerate() if "probes" in thread.name] == []


def test_a_run_says_what_the_machine_refused(tmp_path: Path) -> None:
    wait = plan("  - wait: {time: 1s}\n")
    first = wait.trials[0].id
    machinery = Played(ends={first: OSError(errno.ENOSPC, "No space left on device", "/r/x")})
    quiet: Any = type("Quiet", (), {"__getattr__": lambda *_: lambda *_: None})()
    with pytest.raises(InfrastructureError, match="/r/x: No space left on device"):
        execute.execute_plan(wait, places(tmp_path), tmp_path / "run", quiet, machinery=machinery)
    run = open_run(tmp_path / "run")
    assert (run.status, run.meta.exit_code) == (Status.FAILED, 3)
    assert run.meta.error == "/r/x: No space left on device"


def test_a_report_that_is_interrupted_is_what_meta_json_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of the run is missing, for which `resume` would be asked."""
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.errors import ExitCode

    def interrupted(*_: object) -> dict[str, str]:
        raise KeyboardInterrupt

    directory = write_run(tmp_path, "r-1", snapshots=False)
    result = RunResult(directory, ExitCode.COMPLETED, (), RunAnalysis.open(directory))
    monkeypatch.setattr("orchestrator.cli.runs.write_reports", interrupted)
    ctx: Any = None
    with pytest.raises(KeyboardInterrupt):
        run_verb.carry_out(ctx, directory, None, lambda _: result, as_json=True)
    run = open_run(directory)
    assert (run.meta.exit_code, run.status) == (130, Status.COMPLETED)
    said = capsys.readouterr().err
    assert f"orchestrator report {directory}" in said
    assert "resume" not in said


@pytest.mark.parametrize("part", ["report", "output"])
def test_what_the_caller_gets_is_what_meta_json_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """All trials completed, and their result could not be printed."""
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.errors import ExitCode

    def refuse(*_: object, **__: object) -> dict[str, str]:
        raise OSError(errno.ENOSPC, "No space left on device", "/r/report.html")

    directory = write_run(tmp_path, "r-1", snapshots=False)

    def carried_out(ctx: Any, *_: object, **__: object) -> None:
        result = RunResult(directory, ExitCode.COMPLETED, (), RunAnalysis.open(directory))
        run_verb.carry_out(ctx, directory, None, lambda _: result, as_json=True)

    if part == "report":
        monkeypatch.setattr("orchestrator.cli.runs.write_reports", refuse)
    else:
        monkeypatch.setattr("orchestrator.cli.runs.write_reports", lambda _: {})
        monkeypatch.setattr(run_verb, "_print_result", refuse)
    monkeypatch.setattr(run_verb.resume_command, "callback", None)
    monkeypatch.setattr(run_verb.resume_command, "invoke", carried_out)
    with pytest.raises(SystemExit) as end:
        main(["resume", "r-1", "--results", str(tmp_path)])
    run = open_run(directory)
    assert (end.value.code, run.meta.exit_code, run.status) == (3, 3, Status.COMPLETED)
    assert run.meta.error == "/r/report.html: No space left on device"
    assert "error: /r/report.html: No space left on device" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["list"], ["list", "--json"]])
def test_an_output_that_takes_nothing(tmp_path: Path, verb: list[str]) -> None:
    write_run(tmp_path, "r-1", snapshots=False)
    argv = [sys.executable, "-m", "orchestrator", *verb, "--results", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        3,
        ["error: standard output: No space left on device", "next: free some space: df -h"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_what_is_closed_takes_no_file_of_ours(tmp_path: Path, closed: str) -> None:
    """Nothing is opened with the number of an output, so that nothing which is printed gets into a file."""
    code = (
        "import json, os, sys; from orchestrator.cli import main; sys.argv = ['orchestrator', '--version']\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        f"opened = open({str(tmp_path / 'said')!r}, 'w')\n"
        "json.dump([code, opened.fileno(), [os.get_inheritable(number) for number in range(3)]], opened)"
    )
    subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], check=True)
    code, number, inherited = json.loads((tmp_path / "said").read_text())
    assert (code, number > 2) == (0, True)
    assert inherited == [True] * 3, "nor does a file of a child get that number"


def test_a_log_that_is_full_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "err", Console(stderr=True))  # whatever it keeps goes with the test
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        progress.PlainProgress().note("a line")
        with pytest.raises(OSError, match="No space"):
            full.flush()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())

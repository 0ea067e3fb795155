"""A trial from end to end with a guest that is played: whatever happens, it is on disk what happened."""

from __future__ import annotations

import errno

import pytest
from fakes import FakeShell
from staged import EXEC, WAIT, Stage, said

from orchestrator.errors import InfrastructureError
from orchestrator.host.shell import HostShell
from orchestrator.store import TrialWriter, read_observations


def test_what_others_have_is_read_once_the_guest_before_has_gone(stage: Stage) -> None:
    def call(name: str, *_: object, **__: object) -> object:
        stage.calls.append(name)
        return {"/proc/meminfo": "SecPageTables: 8 kB\n"}

    stage.host_shell = HostShell(call)
    assert stage.run(WAIT) is None
    assert stage.calls[:2] == ["wait", "texts"]


def test_what_the_machine_refuses_is_the_trials_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise FileExistsError(errno.EEXIST, "File exists", "/var/tmp/x")

    monkeypatch.setattr(FakeShell, "run", refuse)
    error = stage.run(EXEC)
    assert error is not None
    assert error.brief == "/var/tmp/x: File exists"
    assert stage.event("trial.end")["error"] == error.brief


def test_a_trial_of_which_samples_are_missing_has_not_completed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_writer: TrialWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/r/observations.arrows")

    monkeypatch.setattr(TrialWriter, "flush", refuse)
    error = stage.run(WAIT)
    assert error is not None
    assert error.hint == "free some space: df -h /r/observations.arrows"
    assert stage.event("trial.end")["outcome"] == "failed"


def test_a_trial_that_completes(stage: Stage) -> None:
    stage.answers = {"true": ""}
    assert stage.run(WAIT, EXEC) is None
    assert [event.name for event in stage.events] == [
        *("trial.begin", "phase", "phase", "guest.start", "guest.kernel", "phase"),
        *("step.begin", "step.end", "step.begin", "output", "step.end", "kernel.log", "trial.end"),
    ]
    times = [event.t_ns for event in stage.events]
    assert times == sorted(times)
    assert times[7] - times[6] >= 50_000_000
    assert stage.event("guest.start") == {"start": "cold", "state": ""}
    phases = [said(event) for event in stage.events if event.name == "phase"]
    assert [fields["phase"] for fields in phases] == ["boot", "set up", "settings"]
    assert all(fields["seconds"] >= 0 for fields in phases)
    log = stage.event("kernel.log")
    assert (log["of"], log["source"], log["complaints"]) == ("guest", "dmesg", 1)
    end = stage.event("trial.end")
    assert (end["outcome"], end["error"], end["console_tail"]) == ("completed", "", "")
    assert ("done", "exec true", "done") in stage.watching.messages
    assert ("step", "2/2 exec true") in stage.watching.messages
    observations = read_observations(stage.folder / "arm-01")
    assert (observations["name"] == "one").sum() >= 2
    assert stage.ended
    assert list((stage.folder / "runtime").iterdir()) == [], "nothing of it stays on the host"


def test_the_last_sample_is_taken_behind_the_last_step(stage: Stage) -> None:
    stage.answers = {"true": ""}
    assert stage.run(EXEC) is None
    (end,) = (event for event in stage.events if event.name == "step.end")
    observations = read_observations(stage.folder / "arm-01")
    assert (observations.loc[observations["name"] == "one", "t_ns"] > end.t_ns).any()


def test_a_resize_leaves_its_curve_and_what_the_guest_said(stage: Stage) -> None:
    block = 128 << 20
    stage.answers = {
        "/usr/local/bin/memory-blocks offline": (
            f"blocks {block} 9\n8 0.250 OK {block}\n7 5.250 EINTR {block}\nend all\n"
        )
    }
    assert stage.run({"action": "offline", "params": {"by": 2 * block}}) is None
    end = stage.event("step.end")
    assert (end["outcome"], end["message"]) == ("partial", "EINTR 1")
    assert end["curve"] == ((0, 0), (0.25, block))
    assert end["settled_ns"] - end["requested_ns"] == 5_250_000_000


def test_a_command_that_fails_ends_the_trial_and_keeps_what_was_read(stage: Stage) -> None:
    stage.console = "[    1.0] booted\r\n[    2.0] \x1b[31mworried\x1b[0m\r\n"
    stage.answers = {"true": 7}
    error = stage.run(WAIT, EXEC, WAIT)
    assert error is not None
    assert error.__cause__ is not error
    end = stage.event("trial.end")
    assert end["outcome"] == "command-failed"
    assert end["console_tail"] == "[    1.0] booted\n[    2.0] worried"
    assert "true ended with code 7" in end["error"]
    assert len([event for event in stage.events if event.name == "step.begin"]) == 2, "no third step"
    assert stage.event("kernel.log")["complaints"] == 1, "which may be why"
    assert len(read_observations(stage.folder / "arm-01")) >= 2
    assert stage.ended


def test_an_interrupt_is_recorded_and_raised_again(stage: Stage) -> None:
    stage.answers = {"true": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        stage.run(WAIT, EXEC)
    assert stage.event("trial.end")["outcome"] == "interrupted"
    assert stage.ended
    assert len(read_observations(stage.folder / "arm-01")) >= 1


def test_a_fault_of_ours_is_no_interrupt(stage: Stage) -> None:
    stage.answers = {"true": ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError):
        stage.run(EXEC)
    assert stage.event("trial.end")["outcome"] == "failed"


@pytest.mark.parametrize("refused", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_machine_that_refuses_ends_the_trial_and_not_the_run(stage: Stage, refused: Exception) -> None:
    stage.answers = {"true": refused}
    error = stage.run(EXEC)
    assert error is not None
    assert "no more" in error.brief
    assert error.hint
    assert stage.event("trial.end")["outcome"] == "failed"


def test_a_trial_that_takes_too_long(stage: Stage) -> None:
    assert stage.run({"action": "wait", "params": {"time": 60}}, deadline_seconds=0.0) is not None
    end = stage.event("trial.end")
    assert (end["outcome"], "deadline of 0 s" in end["error"]) == ("timeout", True)


def test_a_host_that_fails_is_not_blamed_on_the_guest(stage: Stage) -> None:
    stage.boot_error = InfrastructureError("libvirt could not start the guest", hint="orchestrator doctor")
    assert stage.run(WAIT) is stage.boot_error
    end = stage.event("trial.end")
    assert (end["outcome"], end["hint"]) == ("failed", "orchestrator doctor")
    assert not stage.ended
    boot = stage.event("phase")
    assert boot["phase"] == "boot", "its time is a guest's, also where none came of it"
    assert boot["seconds"] >= 0

"""Workloads in a trial: what they measure, what they find, and what ends them."""

from __future__ import annotations

import json

import pytest
from fakes import FakeDomain
from staged import DMESG, EXEC, Stage, said

from orchestrator.errors import BadInputError, GuestLostError
from orchestrator.guest.setup import SETTINGS
from orchestrator.host.shell import HostShell
from orchestrator.run import sampling
from orchestrator.store import read_observations

MAPPED = {
    "held_bytes": 0,
    "pages_touched": 512,
    "page_table_bytes_touched": 4096,
    "page_table_bytes_discarded": 0,
    "touch_seconds": 0.5,
    "discard_seconds": 0.25,
}
KILLED = (
    "[   71.200011] Out of memory: Killed process 312 (sparse-map) total-vm:1073742608kB, anon-rss:2944kB, "
    "file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:634680kB oom_score_adj:0\n"
    "[   71.900000] Out of memory: Killed process 201 (agetty) total-vm:5120kB, anon-rss:256kB, "
    "file-rss:1792kB, shmem-rss:0kB, UID:0 pgtables:52kB oom_score_adj:0\n"
)
START = {"action": "start", "params": {"workload": "sparse-map", "set": {"oom_score_adj": 7}}}
STOP = {"action": "stop", "params": {"workload": "sparse-map"}}


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Waiting for a sample, of which the played guest sends one only."""
    waited: list[str] = []
    monkeypatch.setattr(sampling.Sampling, "wait_for_sample", lambda *_: waited.append("waited"))
    return waited


@pytest.mark.parametrize("code", [137, -1])
def test_a_workload_that_is_killed_is_the_outcome_of_its_step(
    stage: Stage, sampled: list[str], code: int
) -> None:
    stage.answers = {
        "/usr/local/bin/sparse-map": code,
        "dmesg": f"{DMESG}{KILLED}",
        "pkill -x sparse-map": 1,
        "pgrep -x sparse-map": 1,
        "true": "",
    }
    assert stage.run(START, EXEC, STOP) is None, "the trial goes on"
    assert stage.shell.oom_score_adj["/usr/local/bin/sparse-map"] == 7
    assert stage.shell.oom_score_adj["true"] == 0, "not what the connection has"
    ends = [said(event) for event in stage.events if event.name == "step.end"]
    assert [(end["action"], end["outcome"]) for end in ends] == [
        ("start", "killed"),
        ("exec", "done"),
        ("stop", "killed"),
    ]
    how = "the OOM killer ended sparse-map, with 619.8 MiB of page tables and 2.875 MiB of anonymous memory"
    assert [end["message"] for end in ends] == [how, "", how]
    assert ends[0]["workload"] == "sparse-map"
    assert stage.event("trial.end")["outcome"] == "completed"
    assert sampled, "its counter is read before anything else happens"
    kills = [said(event) for event in stage.events if event.name == "oom.kill"]
    assert [(one["workload"], one["comm"], one["pid"]) for one in kills] == [
        ("sparse-map", "sparse-map", 312),
        ("", "agetty", 201),
    ]
    assert kills[0]["page_table_bytes"] == 634680 << 10


@pytest.mark.usefixtures("sampled")
def test_a_workload_that_is_killed_by_another_is_killed_all_the_same(stage: Stage) -> None:
    stage.answers = {"/usr/local/bin/sparse-map": 137, "pkill -x sparse-map": 1, "pgrep -x sparse-map": 1}
    assert stage.run(START, STOP) is None
    start, stop = (said(event) for event in stage.events if event.name == "step.end")
    assert start["outcome"] == "killed"
    assert start["message"] == "sparse-map was killed before it held what it was to hold"
    assert stop["outcome"] == "done", "that it is gone does not say how it went"
    assert not [event for event in stage.events if event.name == "oom.kill"]


def test_a_workload_that_fails_is_not_killed(stage: Stage) -> None:
    stage.answers = {"/usr/local/bin/sparse-map": 1}
    error = stage.run(START)
    assert error
    assert "sparse-map ended with code 1" in error.brief
    assert stage.event("trial.end")["outcome"] == "command-failed"


def test_whom_the_host_killed_is_recorded_when_the_guest_is_lost(stage: Stage) -> None:
    line = KILLED.splitlines()[0].partition("] ")[2].replace("sparse-map", "qemu-system-x86")

    def call(name: str, *words: object, **_: object) -> object:
        return [line] if name == "kernel_log" else {}

    stage.domain = FakeDomain(shell=HostShell(call))
    stage.answers = {"true": GuestLostError("the ssh connection to the guest broke")}
    assert isinstance(stage.run(EXEC), GuestLostError)
    kill = stage.event("oom.kill")
    assert (kill["of"], kill["comm"]) == ("host", "qemu-system-x86")
    assert "workload" not in kill
    assert kill["uptime_seconds"] is None


def test_a_workload_is_installed_started_recorded_and_stopped(stage: Stage) -> None:
    stage.answers = {
        "/usr/local/bin/sparse-map": json.dumps(MAPPED),
        "pkill -x sparse-map": "",
        "pgrep -x sparse-map": 1,
    }
    start = {"action": "start", "params": {"workload": "sparse-map", "set": {"span": "1GiB"}}}
    stop = {"action": "stop", "params": {"workload": "sparse-map"}}
    assert stage.run(start, stop, setup={"thp": "never"}, kernel_args="page_owner=on") is None
    assert stage.installed >= {"guest-probe", "guest-settings", "memory-blocks"}
    (settings,) = (argv for argv in stage.shell.commands if argv[0] == SETTINGS)
    assert settings[1].startswith("clock=")
    assert settings[2:] == ["connection=spared", "online_policy=online", "thp=never", "swap=none"]
    assert stage.kernel_args == "page_owner=on"
    assert ["/usr/local/bin/sparse-map", str(1 << 30)] in [argv[:2] for argv in stage.shell.commands]
    (sampler,) = (argv for argv in stage.shell.commands if "sample" in argv)
    assert sampler[-2:] == ["--", "sparse-map"], "the probes watch it"
    ends = [said(event) for event in stage.events if event.name == "step.end"]
    assert [end["workload"] for end in ends] == ["sparse-map", "sparse-map"]
    assert ends[0]["values"] == MAPPED
    table = read_observations(stage.folder / "arm-01")
    measured = table.loc[table["source"] == "workload/sparse-map"].set_index("name")
    assert measured["unit"].to_dict() == {
        "held_bytes": "bytes",
        "pages_touched": "count",
        "page_table_bytes_touched": "bytes",
        "page_table_bytes_discarded": "bytes",
        "touch_seconds": "seconds",
        "discard_seconds": "seconds",
    }


def test_a_guest_whose_clock_counts_instructions_tells_no_seconds(stage: Stage) -> None:
    stage.answers = {"/usr/local/bin/sparse-map": json.dumps({**MAPPED, "touch_instructions": 7})}
    start = {"action": "start", "params": {"workload": "sparse-map"}}
    assert stage.run(start, accel="tcg-icount") is None
    values = stage.event("step.end")["values"]
    assert values == {
        **{name: value for name, value in MAPPED.items() if "seconds" not in name},
        "touch_instructions": 7,
    }
    table = read_observations(stage.folder / "arm-01")
    measured = table.loc[table["source"] == "workload/sparse-map"].set_index("name")
    assert measured.loc["touch_instructions", "unit"] == "instructions"
    timed = measured.loc[measured["unit"] == "seconds"]
    assert set(timed.index) == {"touch_seconds", "discard_seconds"}
    assert timed["value"].isna().all()
    assert set(timed["gap"]) == {"the guest's clock counts instructions: it has no times"}


def test_what_a_workload_finds_is_recorded_when_it_is_stopped(stage: Stage) -> None:
    figures = {"mismatches": 1, "stuck_threads": 0, "checked_bytes": 8192}
    wrong = {"kind": "mismatch", "text": "owner 0: at 0x7000", "address": "0x7000"}
    stage.answers = {
        "rm": "",
        "env": json.dumps({"pid": 7, "held_bytes": 4096, "checked_bytes": 4096}),
        "pkill": "",
        "pgrep": 1,
        "cat": json.dumps({"figures": figures, "findings": [wrong]}),
    }
    steps = [{"action": action, "params": {"workload": "integrity"}} for action in ("start", "stop")]
    assert stage.run(*steps) is None
    assert dict(stage.event("finding")) == {"step": 2, "workload": "integrity", **wrong}
    ends = [said(event) for event in stage.events if event.name == "step.end"]
    assert [end["values"]["checked_bytes"] for end in ends] == [4096, 8192]
    table = read_observations(stage.folder / "arm-01")
    checked = table.loc[table["name"] == "checked_bytes"]
    assert checked["value"].tolist() == [4096, 8192]
    assert set(checked["unit"]) == {"bytes"}


def test_a_plan_that_names_no_workload_of_ours(stage: Stage) -> None:
    error = stage.run({"action": "start", "params": {"workload": "mysql"}})
    assert isinstance(error, BadInputError)
    assert stage.event("trial.end")["outcome"] == "failed"
    assert stage.shell.commands == [], "nothing was booted"

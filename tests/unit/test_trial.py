"""A trial from end to end with a guest that is played: whatever happens, it is on disk what happened."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Answer, FakeChannel, FakeDomain, FakeShell, Ticking, trial_plan

from orchestrator.errors import (
    BadInputError,
    GuestLostError,
    GuestPanicError,
    InfrastructureError,
    OrchestratorError,
)
from orchestrator.guest import boot
from orchestrator.guest.boot import Guest
from orchestrator.guest.causes import panic
from orchestrator.guest.console import Console
from orchestrator.guest.setup import SETTINGS
from orchestrator.host.shell import HostShell
from orchestrator.launch.environment import SharedHost, TrialEnvironment
from orchestrator.launch.guests import Guests
from orchestrator.launch.paths import ProjectPaths
from orchestrator.observation import Reading
from orchestrator.plan import TrialSpec
from orchestrator.probes import HostView, Probe
from orchestrator.records.events import Event
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import PlanRecord
from orchestrator.run import sampling
from orchestrator.run.trial import run_trial
from orchestrator.series import Series
from orchestrator.store import SCHEMA_VERSION, Run, TrialFolder, TrialWriter, read_events, read_observations
from orchestrator.store.reader import ListedTrial
from orchestrator.summary import TrialSummary, summarise_trial

ROOT = Path(__file__).parents[2]
UNAME = "7.3.0-rc1+ #12 SMP PREEMPT_DYNAMIC Sun Nov 29 10:00:00 UTC 2026\n"
WAIT = {"action": "wait", "params": {"time": 0.05}}
EXEC = {"action": "exec", "params": {"argv": ["true"]}}
DMESG = "[    0.000000] Linux version 6.12\n[   12.3] BUG: Bad page map in process sh  pte:1 pmd:2\n"
MAPPED = {
    "held_bytes": 0,
    "pages_touched": 512,
    "page_table_bytes_touched": 4096,
    "page_table_bytes_discarded": 0,
    "touch_seconds": 0.5,
    "discard_seconds": 0.25,
}


class One(Probe):
    """Reads 1 on the host."""

    series = (Series("one", "count", "always 1"),)

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("one", 1)


class Watching:
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, ...]] = []

    def note(self, text: str) -> None:
        self.messages.append(("note", text))

    def trial(self, trial_id: str, number: int, total: int) -> None: ...
    def step(self, text: str, number: int, total: int) -> None:
        self.messages.append(("step", f"{number}/{total} {text}"))

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        self.messages.append(("done", text, outcome))

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None: ...


class Stage(Guests):
    """One trial whose guest is played; `console` is what the guest prints when it is booted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.watching = Watching()
        self.console = ""
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.domain = FakeDomain()
        self.ended = False
        self.kernel_args = ""
        self.kernel = folder / "bzImage"
        self.kernel.write_bytes(b"a kernel of mine")
        self.installed: set[str] = set()
        self.boot_error: OrchestratorError | None = None
        self.shell = FakeShell()
        self.channel: Callable[[], FakeChannel] = Ticking
        self.make_shell: type[FakeShell] = FakeShell
        self.host_shell = HostShell()
        self.calls: list[str] = []
        monkeypatch.setattr(sampling, "PROBES", [("one", One)])
        monkeypatch.setattr(boot, "LATE_SECONDS", 0.1)

    @contextmanager
    def booted(
        self, *_: object, scratch: Path, console_log: Path | None = None, kernel_args: str = "", **__: object
    ) -> Iterator[Guest]:
        assert console_log
        scratch.mkdir(parents=True)
        self.kernel_args = kernel_args
        if self.boot_error:
            raise self.boot_error
        console_log.write_text(self.console)
        answers = {SETTINGS: "", "uname -rv": UNAME, "dmesg": DMESG, **self.answers}
        self.shell = self.make_shell(answers, self.channel())
        try:
            guest: Any = (self.domain, self.shell, Console(console_log), None)
            yield Guest(*guest)
        finally:
            self.ended = True

    def restored(self, *_: object, **__: object) -> AbstractContextManager[Guest]:
        raise AssertionError("nothing was saved")

    def adopted(self, *_: object, **__: object) -> AbstractContextManager[Guest]:
        raise AssertionError("its host is no guest")

    def apply_playbook(
        self, playbook: Path, variables: dict[str, Any], *_: object, check: Callable[[], None]
    ) -> None:
        check()
        assert playbook.is_file()
        with tarfile.open(variables["programs"]) as tar:
            assert all(member.mode == 0o755 for member in tar)
            self.installed = set(tar.getnames())

    def plan(self, *steps: object, **changes: object) -> TrialSpec:
        return trial_plan("arm-01", steps=steps, sample_every_seconds=0.01, **changes)

    def run(self, *steps: object, accel: str = "tcg", **changes: object) -> OrchestratorError | None:
        places = ProjectPaths(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", self.folder / "cache")
        image: Any = SimpleNamespace(boot_files=lambda kernel: SimpleNamespace(kernel=self.kernel))
        host: Any = SimpleNamespace(
            embedded=True, shell=self.host_shell, wait_for_ends=lambda: self.calls.append("wait")
        )
        programs = {source.stem: source for source in (ROOT / "guests" / "programs").iterdir()}
        unused: Any = None  # keys and the definition: the stand-in for guests needs neither
        runtime = self.folder / "runtime"
        environment = TrialEnvironment(
            host,
            image,
            unused,
            places,
            accel,
            unused,
            runtime,
            self.watching,
            programs,
            SharedHost(),
            guests=self,
        )
        writer = TrialWriter(self.folder / "arm-01", "arm-01")
        return run_trial(self.plan(*steps, **changes), environment, writer)

    @property
    def events(self) -> tuple[Event, ...]:
        return read_events(self.folder / "arm-01")

    def event(self, name: str) -> dict[str, Any]:
        (event,) = (event for event in self.events if event.name == name)
        return _said(event)


def _said(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.fields().items() if key not in {"t_ns", "event"}}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


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


@pytest.mark.parametrize(
    "line",
    [
        "I/O error, dev vda, sector 1234 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
        "critical space allocation error, dev vda, sector 8 op 0x1:(WRITE)",
        "Buffer I/O error on dev vda, logical block 7, lost async page write",
        "EXT4-fs error (device vda): ext4_lookup:1855: inode #2: comm sh: iget: checksum invalid",
        "EXT4-fs (vda): Remounting filesystem read-only",
        "Aborting journal on device vda-8.",
    ],
)
def test_a_guest_whose_disk_failed_it_has_not_completed(stage: Stage, line: str) -> None:
    stage.answers = {"dmesg": f"[    0.000000] Linux version 6.12\n[   12.3] {line}\n"}
    error = stage.run(WAIT)
    assert error is not None
    assert (error.brief, error.details) == (
        "the guest could not read or write its disk",
        f"[   12.3] {line}",
    )
    assert stage.event("trial.end")["outcome"] == "failed"
    assert stage.event("kernel.log")["lines"] == (f"[   12.3] {line}",)


@pytest.mark.parametrize(
    "line",
    [
        "EXT4-fs (vda): mounted filesystem 2f r/w with ordered data mode. Quota mode: none.",
        "EXT4-fs (vda): re-mounted 2f r/w.",
        "I/O error, dev loop0, sector 0 op 0x0:(READ)",
    ],
)
def test_what_is_no_error_of_its_disk_ends_no_trial(stage: Stage, line: str) -> None:
    stage.answers = {"dmesg": f"[    0.000000] Linux version 6.12\n[   12.3] {line}\n"}
    assert stage.run(WAIT) is None


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
    phases = [_said(event) for event in stage.events if event.name == "phase"]
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


def test_which_kernel_ran_is_known_without_any_snapshot(stage: Stage) -> None:
    def summarised() -> TrialSummary:
        assert stage.run(WAIT) is None
        meta = {"schema_version": SCHEMA_VERSION, "image": {"kernels": {"6.12": "6.12.1"}}}
        run = Run(stage.folder, RunMeta.model_validate(meta), PlanRecord())
        return summarise_trial(run, TrialFolder(stage.folder / "arm-01", ListedTrial("arm-01", "arm", 1, {})))

    first = summarised()
    assert first.kernel_release == "7.3.0-rc1+"
    assert first.kernel_build == "#12 SMP PREEMPT_DYNAMIC Sun Nov 29 10:00:00 UTC 2026"
    assert first.kernel_sha256 == hashlib.sha256(b"a kernel of mine").hexdigest()
    shutil.rmtree(stage.folder / "arm-01")
    stage.kernel.write_bytes(b"another build of it")
    second = summarised()
    assert second.kernel_release == first.kernel_release
    assert second.kernel_sha256 != first.kernel_sha256


class Resetting(Ticking):
    """Of a guest that resets itself once its last step has ended: no whole sample comes any more."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = True

    def recv(self, size: int) -> bytes:
        return super().recv(size) if self.alive else FakeChannel.recv(self, size)


def test_a_guest_that_resets_in_its_last_step_did_not_complete(stage: Stage) -> None:
    """It answers `dmesg` still, and QEMU runs for as long as libvirt takes to end it."""
    channel = Resetting()
    stage.channel = lambda: channel

    class Shell(FakeShell):
        def run(self, argv: list[str], **words: Any) -> Any:
            if argv == ["true"]:
                channel.alive = False
            if argv[0] == "dmesg":
                channel.put(None)  # the connection ends
            return super().run(argv, **words)

    stage.make_shell = Shell
    stage.answers = {"true": ""}
    assert isinstance(stage.run(WAIT, EXEC), GuestLostError)
    end = stage.event("trial.end")
    assert end["outcome"] == "lost"
    assert [_said(event)["outcome"] for event in stage.events if event.name == "step.end"] == ["done", "done"]


def test_the_last_sample_is_taken_behind_the_last_step(stage: Stage) -> None:
    stage.answers = {"true": ""}
    assert stage.run(EXEC) is None
    (end,) = (event for event in stage.events if event.name == "step.end")
    observations = read_observations(stage.folder / "arm-01")
    assert (observations.loc[observations["name"] == "one", "t_ns"] > end.t_ns).any()


def test_a_guest_that_prints_a_panic_and_lives_completes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panic, "RESET_SECONDS", 0.01)
    stage.console = "[    5.1] Kernel panic - not syncing: a process says so\n"
    stage.answers = {"true": ""}
    assert stage.run(WAIT, EXEC) is None
    assert stage.event("trial.end")["outcome"] == "completed"
    assert ["dmesg", "--kernel"] in stage.shell.commands, "without what processes write to /dev/kmsg"


def test_what_a_guest_calls_its_kernel_is_printable(stage: Stage) -> None:
    stage.answers = {"uname -rv": "6.12\x1b[2J\u202e-evil\x07 #1 SMP\r\x9b31m\n"}
    assert stage.run(WAIT) is None
    kernel = stage.event("guest.kernel")
    assert kernel["kernel_release"] == "6.12\ufffd[2J\ufffd-evil\ufffd"
    assert not {one for one in kernel["kernel_build"] if ord(one) < 32 or 127 <= ord(one) < 160}


def test_a_kernel_that_cannot_be_read_is_no_crash(stage: Stage) -> None:
    stage.kernel = stage.folder
    error = stage.run(WAIT)
    assert isinstance(error, InfrastructureError)
    assert str(stage.folder) in error.brief
    assert stage.event("trial.end")["outcome"] == "failed"


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
    ends = [_said(event) for event in stage.events if event.name == "step.end"]
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
    kills = [_said(event) for event in stage.events if event.name == "oom.kill"]
    assert [(one["workload"], one["comm"], one["pid"]) for one in kills] == [
        ("sparse-map", "sparse-map", 312),
        ("", "agetty", 201),
    ]
    assert kills[0]["page_table_bytes"] == 634680 << 10


@pytest.mark.usefixtures("sampled")
def test_a_workload_that_is_killed_by_another_is_killed_all_the_same(stage: Stage) -> None:
    stage.answers = {"/usr/local/bin/sparse-map": 137, "pkill -x sparse-map": 1, "pgrep -x sparse-map": 1}
    assert stage.run(START, STOP) is None
    start, stop = (_said(event) for event in stage.events if event.name == "step.end")
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
    ends = [_said(event) for event in stage.events if event.name == "step.end"]
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
    ends = [_said(event) for event in stage.events if event.name == "step.end"]
    assert [end["values"]["checked_bytes"] for end in ends] == [4096, 8192]
    table = read_observations(stage.folder / "arm-01")
    checked = table.loc[table["name"] == "checked_bytes"]
    assert checked["value"].tolist() == [4096, 8192]
    assert set(checked["unit"]) == {"bytes"}


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


@pytest.mark.parametrize(
    "met", [GuestLostError("the ssh connection broke"), InfrastructureError("libvirt lost the guest")]
)
def test_a_broken_shell_may_be_the_sign_of_a_panic(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, met: OrchestratorError
) -> None:
    def panic(self: FakeShell, argv: list[str], **_: object) -> None:
        (stage.folder / "arm-01" / "console.log").write_text("Kernel panic - not syncing: Out of memory\n")
        raise met

    monkeypatch.setattr(FakeShell, "run", panic)
    error = stage.run(EXEC)
    assert isinstance(error, GuestPanicError)
    assert error.__cause__ is met
    end = stage.event("trial.end")
    assert end["outcome"] == "panic"
    assert end["details"] == "Kernel panic - not syncing: Out of memory"
    log = stage.event("kernel.log")
    assert (log["source"], log["complaints"]) == ("console", None), "the console does not show all"


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


def test_a_guest_that_stops_is_lost(stage: Stage) -> None:
    stage.domain.running = False
    assert isinstance(stage.run(WAIT), GuestLostError)
    assert stage.event("trial.end")["outcome"] == "lost"


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


def test_a_plan_that_names_no_workload_of_ours(stage: Stage) -> None:
    error = stage.run({"action": "start", "params": {"workload": "mysql"}})
    assert isinstance(error, BadInputError)
    assert stage.event("trial.end")["outcome"] == "failed"
    assert stage.shell.commands == [], "nothing was booted"

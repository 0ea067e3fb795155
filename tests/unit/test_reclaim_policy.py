"""`reclaim --policy` on a real process that is taken for a VM: when it acts, and what does not end it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cli_reclaim import OTHER, UUID, Host, host, pytestmark
from test_runtime import typed

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import FileProblemsError, InfrastructureError
from orchestrator.host.remote import HostLostError
from orchestrator.host.runtime import runtime_base, runtime_folder
from orchestrator.host.settings import left_settings
from orchestrator.levers import LEVERS, Prediction, Scope
from orchestrator.reclaim.journal import Journal, Line
from orchestrator.reclaim.loop import Clock, PolicyLoop
from orchestrator.reclaim.policy import ReclaimPolicy, load_policy
from orchestrator.reclaim.vm import LiveVm
from orchestrator.records.step import StepOutcome
from orchestrator.units import KIB, MIB

__all__ = ["host", "pytestmark"]

STARTED = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
TEXT = {
    "version": 1,
    "lever": "flush",
    "domains": "all",
    "reclaimable_at_least": "1MiB",
    "pause": "10min",
    "settle": "0s",
}


class TestClock(Clock):
    """Stands still but for `pass_by`; `sleep` does what a test wants."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.while_asleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return STARTED + timedelta(seconds=self.seconds - 1000)

    def sleep(self, seconds: float) -> None:
        self.while_asleep()

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Service:
    """A loop on a host, its clock and its journal, and what it said."""

    host: Host
    folder: Path
    runtime: Path
    clock: TestClock = field(default_factory=TestClock)
    lost: Exception | None = None
    told: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """Of the journal."""
        if not self.journal.is_file():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def events(self) -> list[tuple[str, str | None, str]]:
        """Event, outcome and reason of each line."""
        return [(one["event"], one.get("outcome"), one.get("reason", "")) for one in self.lines()]

    def loop(self, *, act: bool, journal: Path | None = None, **changes: object) -> PolicyLoop:
        policy = ReclaimPolicy.model_validate({**TEXT, "journal": str(journal or self.journal), **changes})

        @contextmanager
        def connect() -> Iterator[Host]:
            if self.lost:
                raise self.lost
            yield self.host

        return PolicyLoop(
            policy,
            LEVERS[policy.lever].model_validate(policy.parameters),
            connect,  # type: ignore[arg-type]  # its domain is a stand-in
            Journal(policy.journal, self.complaints.append),
            name="node1",
            runtime=self.runtime,
            act=act,
            tell=lambda line: self.told.append(f"{line.vm}: {line.reason}"),
            clock=self.clock,
        )


@pytest.fixture
def service(host: Host, tmp_path: Path) -> Iterator[Service]:
    with runtime_folder(Path("reclaim")) as runtime:
        yield Service(host, tmp_path, runtime)


def test_without_act_it_says_what_it_would_do(service: Service) -> None:
    assert service.loop(act=False).look()
    (line,) = service.lines()
    assert (line["event"], line["host"], line["vm"], line["lever"]) == ("dry-run", "node1", "web1", "flush")
    assert line["scope"] == Scope.HOST.value
    assert line["time"] == "2026-11-29T12:00:00+00:00"
    assert line["measured"]["before"]["second_level_bytes"] == 1712 * KIB
    assert list(line["measured"]) == ["before"]
    assert line["predicted"]["second_level_at_least_bytes"] == 0
    most = line["predicted"]["second_level_at_most_bytes"]
    assert line["predicted"]["reclaimable_bytes"] == 1712 * KIB - most > MIB
    assert line["because"].endswith("reclaimable (from 1 MiB on)")
    assert "outcome" not in line
    assert service.host.flushes == 0


def test_it_acts_measures_and_keeps_the_pause(service: Service) -> None:
    loop = service.loop(act=True)
    loop.look()
    (line,) = service.lines()
    assert (line["event"], line["outcome"], line["reason"]) == ("attempt", "done", "")
    held = [line["measured"][moment]["second_level_bytes"] for moment in ("before", "at_once", "after")]
    assert held == [1712 * KIB, 332 * KIB, 332 * KIB]
    assert service.host.flushes == 1
    service.host.own_kib = 1712
    for seconds, flushes in ((0, 1), (599, 1), (1, 2), (1, 2)):
        service.clock.pass_by(seconds)
        assert loop.look()
        assert service.host.flushes == flushes
        service.host.own_kib = 1712
    assert [event for event, _, _ in service.events()] == ["attempt", "attempt"]


def test_below_the_threshold_nothing_is_done_or_written(service: Service) -> None:
    service.host.own_kib = 1000
    assert service.loop(act=True).look()
    assert (service.lines(), service.host.flushes) == ([], 0)


def test_the_pause_outlasts_the_process(service: Service) -> None:
    service.loop(act=False).look()
    again = service.loop(act=True)
    again.remember()
    again.look()
    assert service.host.flushes == 1, "a dry run holds up no attempt"
    for act, flushes in ((True, 1), (False, 1)):
        service.host.own_kib = 1712
        service.clock.pass_by(100)
        loop = service.loop(act=act)
        loop.remember()
        loop.look()
        assert service.host.flushes == flushes
    assert len(service.lines()) == 2
    service.clock.pass_by(401)
    loop = service.loop(act=True)
    loop.remember()
    loop.look()
    assert service.host.flushes == 2


def test_a_lever_on_one_vm_is_paused_for_that_vm(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one whose last attempt is longest ago comes first."""
    names = []

    class Two(Host):
        def running_names(self) -> list[str]:
            return ["db", "web1"]

        @contextmanager
        def running_domain(self, name: str) -> Iterator[Any]:
            names.append(name)
            with super().running_domain("web1") as domain:
                yield domain

    service.host = Two(service.host.vm)
    found = LiveVm.find

    def find(domain: Any, shell: Any, runtime: Path) -> Any:
        one = found(domain, shell, runtime)
        object.__setattr__(one, "name", names[-1])
        return one

    monkeypatch.setattr(LiveVm, "find", find)
    loop = service.loop(
        act=False, lever="collapse", parameters={"min_present": 480}, reclaimable_at_least="8KiB"
    )
    loop.look()
    assert [line["vm"] for line in service.lines()] == ["db", "web1"]
    assert {line["predicted"]["reclaimable_bytes"] for line in service.lines()} == {3 * 4 * KIB}, (
        "as ranges, not as needed"
    )
    loop.look()
    assert len(service.lines()) == 2
    service.clock.pass_by(600)
    loop.look()
    assert names == ["db", "web1"] * 2
    other = service.loop(act=False, pause="1s", reclaimable_at_least="8KiB")
    other._ended["db"] = service.clock.monotonic() - 100
    other.look()
    assert service.lines()[-1]["vm"] == "web1", (
        "one attempt on all VMs of the host, on whose behalf is its turn"
    )
    assert len(service.lines()) == 5


def test_what_is_refused_is_a_line_and_paused(service: Service) -> None:
    service.host.jobs = {"web1": "migration out"}
    loop = service.loop(act=True)
    loop.look()
    loop.look()
    (line,) = service.events()
    assert line == ("attempt", "refused", "KVM logs what is written while web1 is busy (migration out)")
    assert service.host.flushes == 0
    service.host.jobs = {}
    service.clock.pass_by(600)
    loop.look()
    assert service.host.flushes == 1


def test_a_vm_that_is_killed_meanwhile_is_a_line(service: Service) -> None:
    loop = service.loop(act=True, settle="0.2s")

    def kill() -> None:
        service.host.vm.popen.kill()
        service.host.vm.popen.wait()

    service.clock.while_asleep = kill
    assert loop.look()
    (line,) = service.lines()
    assert (line["event"], line["outcome"]) == ("attempt", "done"), "it was done all the same"
    assert line["reason"].startswith("before it was measured again: ")
    assert list(line["measured"]) == ["before", "at_once"]
    service.clock.pass_by(600)
    assert loop.look(), "the loop goes on"
    event, _, reason = service.events()[-1]
    assert (event, "web1" in reason or "No such" in reason) == ("notice", True)
    count = len(service.lines())
    loop.look()
    assert len(service.lines()) == count, "it is told once"


def test_a_vm_that_ends_before_anything_is_done_is_a_failed_attempt(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(LEVERS["flush"], "pull", gone)
    assert service.loop(act=True).look()
    (line,) = service.events()
    assert line == ("attempt", "failed", "before it was done: No such process")


def test_a_host_that_is_lost_is_told_once_and_that_it_is_back(service: Service) -> None:
    service.lost = InfrastructureError("cannot reach node1 by ssh", details="Connection refused")
    loop = service.loop(act=True)
    assert [loop.look(), loop.look()] == [False, False]
    why = "the host cannot be looked at: cannot reach node1 by ssh: Connection refused"
    assert service.events() == [("notice", None, why)]
    assert service.told == [f": {why}"]
    service.lost = None
    assert loop.look()
    assert [event for event, _, _ in service.events()] == ["notice", "attempt", "notice"]
    assert service.events()[-1][2] == f"no more: {why}"


def test_a_host_that_is_lost_within_an_attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise HostLostError("node1 does not answer", details="silence")

    monkeypatch.setattr(LEVERS["flush"], "pull", lost)
    loop = service.loop(act=True)
    assert not loop.look()
    assert service.events() == [
        ("attempt", "failed", "before it was done: node1 does not answer: silence"),
        ("notice", None, "the host cannot be looked at: node1 does not answer: silence"),
    ]


def test_a_signal_ends_an_attempt_with_a_line(service: Service) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    service.clock.while_asleep = stop
    with pytest.raises(KeyboardInterrupt):
        service.loop(act=True, settle="10s").look()
    (line,) = service.lines()
    assert (line["outcome"], line["reason"]) == ("done", "ended by a signal")
    assert list(line["measured"]) == ["before", "at_once"]
    assert left_settings(service.runtime) == []


def test_what_fails_on_the_way_to_the_end_does_not_keep_it_going(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(*_: object) -> None:
        raise InfrastructureError("web1 has the DIMM still")

    def stopped(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            left()

    monkeypatch.setattr(LEVERS["flush"], "pull", stopped)
    with pytest.raises(KeyboardInterrupt):
        service.loop(act=True).look()
    assert service.events() == [("attempt", "failed", "before it was done: web1 has the DIMM still")]


def test_memory_pressure_of_the_host_makes_a_vm_due(service: Service) -> None:
    loop = service.loop(act=True, psi_some_avg10_at_least=5, reclaimable_at_least=None)
    loop.look()
    ((event, _, reason),) = service.events()
    assert event == "notice"
    assert reason.startswith("the host's kernel has no /proc/pressure/memory")
    service.host.psi = "some avg10=4.99 avg60=0.00 avg300=0.00 total=7\n"
    loop.look()
    assert service.host.flushes == 0
    service.host.psi = "some avg10=5.00 avg60=0.00 avg300=0.00 total=7\n"
    loop.look()
    line = service.lines()[-1]
    assert (service.host.flushes, line["psi_some_avg10"]) == (1, 5.0)
    assert line["because"] == "memory PSI some avg10 5 % (from 5 % on)"
    service.host.own_kib = 0
    service.clock.pass_by(600)
    loop.look()
    assert service.host.flushes == 1, "nothing is to be gained"


def test_what_is_held_may_be_unknown(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up cgroup has the other VM of the host in it, too."""
    vm = service.host.vm.popen.pid
    together = [
        {**Host._vm(vm, "web1", UUID), "cgroup": "0::/m\n"},
        {**Host._vm(OTHER, "db", "x"), "cgroup": "0::/m\n"},
    ]
    call = service.host.call

    def asked(name: str, *words: Any, **options: Any) -> Any:
        if name == "vms":
            return {"vms": together, "unread": [], "cut": False}
        found = call(name, *words, **options)
        if name == "texts" and "/sys/fs/cgroup/m/memory.stat" in words[0]:
            found["/sys/fs/cgroup/m/memory.stat"] = "sec_pagetables 4096\n"
        return found

    monkeypatch.setattr(service.host, "call", asked)
    loop = service.loop(act=True)
    loop.look()
    loop.look()
    (line,) = service.lines()
    assert (line["event"], line["vm"]) == ("notice", "web1")
    assert line["reason"].startswith("what is reclaimable is not known: its cgroup /m has 2 VMs")


def test_a_name_that_no_vm_has_is_told(service: Service) -> None:
    loop = service.loop(act=True, domains=["web[2-9]", "db"])
    loop.look()
    assert [reason for _, _, reason in service.events()] == [
        "no VM that runs is called web[2-9]",
        "no VM that runs is called db",
    ]
    assert service.loop(act=True, domains=["w*"]).look()
    assert service.host.flushes == 1


def test_what_is_reclaimable_is_what_is_free_in_the_end() -> None:
    foreseen = Prediction(tables_at_least=10, tables_at_most=40)
    by_lever = {name: kind().reclaimable(100, foreseen) for name, kind in LEVERS}
    faults = {by_lever[name] for name in ("flush", "collapse-and-flush", "slot")}
    assert faults == {60}, "they make the needed ones anew"
    assert by_lever["collapse"] == 90, "a table goes when its range is touched"
    assert LEVERS["flush"]().reclaimable(30, foreseen) == 0
    assert LEVERS["flush"]().reclaimable(None, foreseen) is None
    assert LEVERS["flush"]().reclaimable(100, Prediction(0, None)) is None


def line(number: int = 0) -> Line:
    return Line(version=1, time=f"{number:03}", event="notice", host="node1", reason="x" * 100)


def test_a_device_that_is_always_full(service: Service) -> None:
    """/dev/full: each write ends with ENOSPC."""
    loop = service.loop(act=True, journal=Path("/dev/full"))
    Journal(Path("/dev/full"), service.complaints.append).check()
    loop.remember()
    loop.look()
    assert service.host.flushes == 1, "it acts all the same"
    service.clock.pass_by(600)
    service.host.own_kib = 1712
    loop.look()
    assert service.complaints == [
        "a line is missing in /dev/full: No space left on device",
        "2 lines are missing in /dev/full: No space left on device",
    ]
    assert len(service.told) == 2, "people are told all the same"


_ON_A_FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from orchestrator.reclaim.journal import Journal, Line

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], check=True)
said = []
journal = Journal(disk / "journal", said.append)
journal.check()

def write(number):
    journal.write(Line(version=1, time=f"{number:03}", event="notice", host="h", reason="x" * 300))

for number in range(100):
    write(number)
full = (disk / "journal").read_text()
assert full.endswith("}\\n"), "what did not fit is no part of it"
kept = len(full.splitlines())
os.truncate(disk / "journal", 0)
write(100)
write(101)
print(json.dumps([kept, said, (disk / "journal").read_text().splitlines()]))
"""


def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path) -> None:
    """A real one, of 16 KiB, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        _ON_A_FULL_DISK,
        str(disk),
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr:
        pytest.skip("no mount namespace may be made here")
    assert ended.returncode == 0, ended.stderr
    kept, said, lines = json.loads(ended.stdout)
    found = [json.loads(one) for one in lines]
    assert 20 < kept < 60
    lost = 100 - kept
    assert [(one["event"], one["time"]) for one in found] == [
        ("lost-lines", "100"),
        ("notice", "100"),
        ("notice", "101"),
    ]
    assert found[0]["lost_lines"] == lost
    assert said[0].endswith("journal: No space left on device")
    assert said[-1].endswith(f"is written again, and says that {lost} lines are missing")
    assert len(said) == lost + 1


def test_a_journal_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, pytest.fail, most_bytes=1000)
    for number in range(30):
        journal.write(line(number))
        assert path.stat().st_size <= 1000
    assert sorted(one.name for one in tmp_path.iterdir()) == ["journal", "journal.1"]
    assert (tmp_path / "journal.1").stat().st_size <= 1000
    assert json.loads(path.read_text().splitlines()[-1])["time"] == "029"


def test_attempts_are_read_over_both_files_and_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    attempt = Line(version=1, time="t", event="attempt", host="h", vm="a", outcome=StepOutcome.DONE)
    (tmp_path / "journal.1").write_bytes(attempt.json_line())
    later = attempt.model_copy(update={"vm": "b"})
    path.write_bytes(b"{\n[]\nnull\n\xff\n" + line().json_line() + later.json_line() + b'{"version": 1, "ev')
    assert [one.vm for one in Journal(path, pytest.fail).attempts()] == ["a", "b"]
    assert list(Journal(tmp_path / "none", pytest.fail).attempts()) == []


def test_two_that_write_one_journal_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("orchestrator.reclaim.journal._LOCK_SECONDS", 0.2)
    said: list[str] = []
    path = tmp_path / "journal"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        journal = Journal(path, said.append)
        journal.write(line(1))
    journal.write(line(2))
    assert said[0] == f"a line is missing in {path}: somebody else has locked it"
    assert [json.loads(one)["event"] for one in path.read_text().splitlines()] == ["lost-lines", "notice"]


def test_a_journal_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "no" / "journal", pytest.fail).check()


def policy_file(folder: Path, **changes: object) -> Path:
    """As YAML, which JSON is."""
    path = folder / "policy.yaml"
    text = {**TEXT, "journal": str(folder / "journal.jsonl"), **changes}
    path.write_text(json.dumps({key: value for key, value in text.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lever": "flsh"}, "no lever is called 'flsh'; did you mean"),
        ({"parameters": {"max_growth": "1MiB"}}, "max_growth"),
        ({"lever": "collapse", "parameters": {"max_growth": "lots"}}, "'lots' is not a size"),
        ({"domains": []}, "domains"),
        ({"reclaimable_at_least": None}, "no threshold; give `reclaimable_at_least`"),
        ({"reclaimable_at_least": "1MB"}, "write 1MiB"),
        ({"psi_some_avg10_at_least": 101}, "100"),
        ({"pause": None}, "pause"),
        ({"pause": "0s"}, "pause"),
        ({"journal": "journal"}, "write an absolute path"),
        ({"pauze": "1s"}, "pauze"),
        ({"version": 2}, "version"),
        (
            {"lever": "collapse", "psi_some_avg10_at_least": 20},
            "collapse refuses where more than 10 % are stalled (most_stalled)",
        ),
    ],
)
def test_faults_of_a_policy(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    path = policy_file(tmp_path, **changes)
    with pytest.raises(FileProblemsError) as found:
        load_policy(path)
    assert said in str(found.value)
    assert str(found.value).startswith(f"{path}:1:")


def test_the_sample_is_a_policy() -> None:
    sample = Path(__file__).parents[2] / "docs" / "reclaim" / "policy.yaml"
    policy, lever = load_policy(sample)
    assert policy.covers("web1")
    assert lever == LEVERS[policy.lever].model_validate(policy.parameters)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flush", "--policy", "FILE"), "--policy and LEVER exclude each other"),
        (("--policy", "FILE", "--domain", "web1"), "--policy and --domain exclude each other"),
        (("--policy", "FILE", "--json"), "--policy and --json exclude each other"),
        (("--policy", "FILE", "--dry-run"), "--policy and --dry-run exclude each other"),
        (("--policy", "FILE", "--watch", "0.1s"), "less than 1s would disturb"),
        (("--policy", "FILE", "--connect", "local"), "'local' has no VMs but our own"),
        (("flush", "--domain", "web1", "--act"), "--act is for --policy"),
        (("flush",), "flush needs --domain"),
        ((), "neither LEVER nor --policy is given"),
        (("--policy", "/no/such/file"), "there is no such file"),
    ],
)
def test_bad_usage(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(policy_file(tmp_path))
    code, _, err = typed(capsys, "reclaim", *(path if word == "FILE" else word for word in words))
    assert code == 2
    assert said in " ".join(err.split())


def test_once_by_the_command_line(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = policy_file(tmp_path)
    code, text, err = typed(capsys, "reclaim", "--policy", str(path))
    assert (code, err) == (0, "")
    assert text.startswith("web1: flush would be used; due: 1.6")
    assert host.flushes == 0
    code, text, err = typed(capsys, "reclaim", "--policy", str(path), "--act")
    assert (code, err, host.flushes) == (0, "", 1)
    assert text.startswith("web1: flush done; due: 1.6")


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host behind an ssh that fails; `--connect` to it."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\necho Connection refused >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME", str(tmp_path))
    return "qemu+ssh://root@node1/system"


def test_one_look_at_a_host_that_is_not_there_has_a_code(
    unreachable: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, err = typed(
        capsys, "reclaim", "--policy", str(policy_file(tmp_path)), "--connect", unreachable
    )
    assert (code, text) == (3, "")
    assert f"{unreachable}: the host cannot be looked at: cannot reach root@node1 by ssh" in err
    assert "Connection refused" in err


@pytest.mark.slow
def test_it_watches_until_it_is_told_to_end(unreachable: str, tmp_path: Path) -> None:
    """And what a host that is not there leaves is removed."""
    argv = [sys.executable, "-m", "orchestrator", "reclaim", "--policy", str(policy_file(tmp_path))]
    argv += ["--connect", unreachable, "--watch", "1s", "--act"]
    ssh = tmp_path / "bin" / "ssh"
    calls = tmp_path / "calls"
    ssh.write_text(ssh.read_text().replace("echo", f"echo >>{calls}\necho", 1))
    # Where libvirt logs is set for a process once, by whichever test was first.
    environment = {name: value for name, value in os.environ.items() if name != "LIBVIRT_LOG_OUTPUTS"}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        many = wait_for(
            lambda: (calls.exists() and len(calls.read_text().splitlines()) >= 3) or None,
            Deadline(60),
            every=0.1,
        )
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert many, err
    assert process.returncode == 130
    assert "putting the host back as it was" in err
    (notice,) = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert json.loads(notice)["host"] == unreachable
    assert not runtime_base().exists() or not list(runtime_base().iterdir())


def test_the_names_of_vms_are_those_of_libvirt(tmp_path: Path) -> None:
    """Of its test driver, which has one."""
    from orchestrator.host.libvirt_host import open_host

    with open_host("test:///default", tmp_path, tmp_path) as opened:
        assert opened.running_names() == ["test"]

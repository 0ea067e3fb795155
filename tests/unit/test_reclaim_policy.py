"""`reclaim --policy` on a real process that is taken for a VM: when it acts, and what does not end it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cli_reclaim import OTHER, UUID, Host, host, pytestmark

from orchestrator.errors import InfrastructureError
from orchestrator.host.remote import HostLostError
from orchestrator.host.runtime import runtime_folder
from orchestrator.host.settings import left_settings
from orchestrator.levers import LEVERS, Prediction, Scope
from orchestrator.reclaim.journal import Journal
from orchestrator.reclaim.loop import Clock, PolicyLoop
from orchestrator.reclaim.policy import ReclaimPolicy
from orchestrator.reclaim.vm import LiveVm
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

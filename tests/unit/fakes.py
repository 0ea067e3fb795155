"""Stand-ins at the seams: a clock, a virtual machine, a running trial, a guest's shell and its stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.actions.context import StepContext
from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, GuestError
from orchestrator.guest.shell import CommandResult, GuestShell
from orchestrator.host.domain import Dimm, DimmAnswer, Domain, MonitorEvent, QemuProcess, VirtioMemState
from orchestrator.host.domain_memory import DomainMemory
from orchestrator.host.domain_xml import RunFiles
from orchestrator.host.machine import Machine
from orchestrator.host.shell import HostShell
from orchestrator.plan import TrialSpec
from orchestrator.records.events import Event

MIB = 1 << 20
UUID = "8b5b5e4c-0000-4000-8000-000000000001"
MACHINE = Machine.model_validate({"memory": "1GiB", "virtio_mem": {"size": "2GiB"}})
DEVICE = VirtioMemState(address=4 << 30, size=0, requested=0, maximum=2048 * MIB, block=2 * MIB)


class Clock:
    """The monotonic clock of whichever module it is installed in; sleeping moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def monotonic_ns(self) -> int:
        return round(self.seconds * 1e9)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def install(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        for module in modules:
            monkeypatch.setattr(module, "time", self)


def host_with(files: Mapping[str, str]) -> HostShell:
    """A host that has these files and no others; of a pattern, all that begin like it."""

    def call(name: str, patterns: list[str], **_: object) -> dict[str, str]:
        assert name == "texts"
        starts = tuple(pattern.partition("*")[0] for pattern in patterns)
        return {path: text for path, text in files.items() if path.startswith(starts)}

    return HostShell(call)


# What is said of DIMMs, and the aliases of those that are gone by then.
DimmTurn = tuple[Sequence[DimmAnswer], Collection[str]]


@dataclass
class FakeDomain(Domain):
    """A virtual machine whose sizes follow a script: the next one at every look, then the last for ever.

    So does what is said of its DIMMs, from the first request on.
    """

    clock: Clock = field(default_factory=Clock)
    sizes: Iterator[int] = field(default_factory=lambda: iter(()))
    device: VirtioMemState | None = DEVICE
    balloon: int = 1024 * MIB
    balloon_sizes: Iterator[int] = field(default_factory=lambda: iter(()))
    statistics: dict[str, int] = field(default_factory=dict)
    events: bool = False
    running: bool = True
    jobs: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    paused: str = ""
    events_of_monitor: list[MonitorEvent] = field(default_factory=list)
    status: int | None = None
    passt_pid: int | None = None
    pid: int = 0
    shell: HostShell = field(default_factory=HostShell)
    addresses: Callable[[int], int] = lambda address: address
    pci: tuple[list[tuple[int, int]], int] = field(default_factory=lambda: ([], 1))
    calls: list[tuple[object, ...]] = field(default_factory=list)
    asked: bool = False
    plugged: tuple[Dimm, ...] = ()
    slots: int = 16
    room: int = 4096 * MIB
    dimm_turns: Iterator[DimmTurn] = field(default_factory=lambda: iter(()))

    @property
    def qemu(self) -> QemuProcess:
        return QemuProcess(self.pid, self.shell)

    @property
    def libvirt_uri(self) -> str:
        return "qemu:///system"

    def memory(self) -> DomainMemory:
        aliases = tuple(dimm.alias for dimm in self.plugged)
        dimms = tuple(dimm.size for dimm in self.plugged)
        free = self.slots - len(dimms)
        return DomainMemory("web1", UUID, None, True, 1024 * MIB, dimms, None, (), free, self.room, aliases)

    def is_running(self) -> bool:
        return self.running

    def why_paused(self) -> str:
        return self.paused

    def happened(self) -> tuple[MonitorEvent, ...]:
        return tuple(self.events_of_monitor)

    def exit_status(self) -> int | None:
        return self.status

    def passt(self) -> int | None:
        return self.passt_pid

    def files(self) -> RunFiles:
        return RunFiles(Path("/full/disk.qcow2"), Path("/full/console.log"), 2222)

    def busy(self) -> dict[str, str]:
        return self.jobs

    def why_ended(self) -> str:
        return self.ended

    def virtio_mem(self) -> VirtioMemState | None:
        if self.device and self.asked:
            self.device = replace(self.device, size=next(self.sizes, self.device.size))
        return self.device

    def pci_memory(self) -> tuple[list[tuple[int, int]], int]:
        return self.pci

    def request_virtio_mem(self, size_bytes: int) -> None:
        self.asked = True
        self.calls.append(("request_virtio_mem", size_bytes))

    def wait_memory_event(self, seconds: float) -> bool:
        self.clock.sleep(seconds)
        return self.events

    def dimms(self) -> tuple[Dimm, ...]:
        return self.plugged

    def attach_dimm(self, size_bytes: int, alias: str = "") -> None:
        self.asked = True
        self.calls.append(("attach_dimm", size_bytes))
        slot = len(self.plugged)
        address = (4 << 30) + sum(dimm.size for dimm in self.plugged)
        self.plugged += (Dimm(alias or f"dimm{slot}", slot, address, size_bytes),)

    def request_dimm_removal(self, alias: str) -> None:
        self.asked = True
        self.calls.append(("request_dimm_removal", alias))

    def dimm_answers(self) -> tuple[DimmAnswer, ...]:
        answers, gone = next(self.dimm_turns, ((), ())) if self.asked else ((), ())
        self.plugged = tuple(dimm for dimm in self.plugged if dimm.alias not in gone)
        return tuple(answers)

    def request_balloon(self, size_bytes: int) -> None:
        self.asked = True
        self.calls.append(("request_balloon", size_bytes))

    def balloon_bytes(self) -> int:
        if self.asked:
            self.balloon = next(self.balloon_sizes, self.balloon)
        return self.balloon

    def balloon_statistics(self) -> dict[str, int]:
        return self.statistics

    def suspend(self) -> None:
        self.calls.append(("suspend",))

    def resume(self) -> None:
        self.calls.append(("resume",))

    def host_address(self, guest_physical: int) -> int:
        return self.addresses(guest_physical)


class FakeTrial(StepContext):
    """A running trial that notes what its actions ask of it. `printed` is what is executed says."""

    def __init__(
        self,
        domain: FakeDomain | None = None,
        machine: Machine = MACHINE,
        host: FakeDomain | None = None,
        *,
        dies_at: float = float("inf"),
        printed: str = "",
        runtime: Path = Path("/no/runtime/folder"),
    ) -> None:
        self._domain = domain or FakeDomain()
        self._machine, self._host = machine, host
        self.dies_at, self.printed = dies_at, printed
        self._runtime = runtime
        self.calls: list[tuple[object, ...]] = []
        self.events: list[Event] = []

    @property
    def machine(self) -> Machine:
        return self._machine

    @property
    def domain(self) -> FakeDomain:
        return self._domain

    @property
    def host_domain(self) -> FakeDomain | None:
        return self._host

    @property
    def runtime(self) -> Path:
        return self._runtime

    @property
    def step(self) -> int:
        return 1

    def now_ns(self) -> int:
        return round((self.domain.clock.seconds - 1000.0) * 1e9)

    def check(self) -> None:
        if self.domain.clock.seconds >= self.dies_at:
            raise GuestError("dead")

    def sleep(self, seconds: float) -> None:
        self.domain.clock.sleep(seconds)
        self.check()

    def record(self, event: Event) -> None:
        self.events.append(event)

    def start_workload(
        self, name: str, settings: Mapping[str, object], deadline: Deadline
    ) -> dict[str, float]:
        self.calls.append(("start", name, settings, deadline.seconds))
        self.domain.clock.sleep(2)
        return {"ops_per_second": 5.0}

    def stop_workload(self, name: str, deadline: Deadline) -> dict[str, float]:
        self.calls.append(("stop", name, deadline.seconds))
        return {"mismatches": 0.0}

    def execute(self, argv: list[str], deadline: Deadline) -> str:
        self.calls.append(("execute", argv, deadline.seconds))
        return self.printed

    def mark(self, label: str) -> None:
        self.calls.append(("mark", label))

    def snapshot(self, label: str, *, of_host: bool = False) -> None:
        self.calls.append(("snapshot", label))


class FakeChannel:
    """A guest's stream: what is put in comes out in order; None, or closing it, is its end."""

    def __init__(self, parts: Iterable[bytes | None] = ()) -> None:
        self._parts: queue.Queue[bytes | None] = queue.Queue()
        for part in parts:
            self._parts.put(part)

    def put(self, part: bytes | None) -> None:
        self._parts.put(part)

    def recv(self, size: int) -> bytes:
        part = self._parts.get(timeout=10)
        if part is None:
            self._parts.put(None)
            return b""
        assert len(part) <= size
        return part

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendall(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self._parts.put(None)


class Ticking(FakeChannel):
    """The stream of a sampler that samples for as long as it is not closed."""

    def __init__(self, every: float = 0.005) -> None:
        super().__init__()
        self.ticks = 0
        self.every = every
        self.closed = threading.Event()

    def recv(self, size: int) -> bytes:
        if self.closed.wait(self.every):
            return b""
        self.ticks += 1
        return f"#tick {self.ticks}\n#end\n".encode()

    def close(self) -> None:
        self.closed.set()


Answer = str | bytes | int | BaseException


class FakeShell(GuestShell):
    """A shell that answers by the beginning of a command line; the last answer of a list stays.

    `stands` is its connection, `again` what a command on a new one prints, or why it fails.
    """

    stands = False
    again: tuple[str, str] = ("", "refused")

    port = 2222

    def __init__(
        self, answers: Mapping[str, Answer | list[Answer]] | None = None, channel: FakeChannel | None = None
    ) -> None:
        self._answers = {
            begin: list(answer) if isinstance(answer, list) else [answer]
            for begin, answer in (answers or {}).items()
        }
        self.channel = channel or FakeChannel()
        self.commands: list[list[str]] = []
        self.oom_score_adj: dict[str, int | None] = {}

    def run(
        self,
        argv: list[str],
        *,
        seconds: float,
        stdin: bytes = b"",
        check: bool = True,
        oom_score_adj: int | None = None,
    ) -> CommandResult:
        self.commands.append(argv)
        self.oom_score_adj[argv[0]] = oom_score_adj
        line = " ".join(argv)
        found = [begin for begin in self._answers if line.startswith(begin)]
        assert found, f"{line!r} was not expected"
        answers = self._answers[max(found, key=len)]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        code = answer if isinstance(answer, int) else 0
        stdout = answer.encode() if isinstance(answer, str) else answer if isinstance(answer, bytes) else b""
        if check and code:
            raise CommandError(f"{argv[0]} ended with code {code}")
        return CommandResult(code, stdout, b"")

    def once_more(self, argv: list[str], *, seconds: float) -> tuple[str, str]:
        return self.again

    @property
    def connected(self) -> bool:
        return self.stands

    @property
    def why_closed(self) -> str:
        return "" if self.stands else "Connection reset by peer"

    def stream(self, argv: list[str]) -> FakeChannel:
        self.commands.append(argv)
        return self.channel


def trial_plan(trial_id: str, **changes: object) -> TrialSpec:
    """A plan with no steps for a guest of 1 GiB."""
    fields = {
        "scenario": "s",
        "id": trial_id,
        "arm": "arm",
        "differs": {},
        "repeat": 1,
        "order": 1,
        "seed": 5,
        "guest": "debian-13",
        "kernel": "6.12",
        "accel": "tcg",
        "setup": {},
        "steps": (),
        "machine": {"memory": 1 << 30},
        "sample_every_seconds": 1.0,
        "deadline_seconds": 60.0,
    }
    return TrialSpec.model_validate({**fields, **changes}, context={"resolved": True})

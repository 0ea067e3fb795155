"""The libvirt side of a domain, with its handle faked: what QEMU answers, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import InfrastructureError
from orchestrator.host import libvirt_domain, reader
from orchestrator.host.domain import Dimm, DimmAnswer, VirtioMemState
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.host.shell import HostShell

LIVE = Path(__file__).with_name("golden") / "live-domain.xml"


class FakeError(Exception):
    """libvirt.libvirtError."""


class Monitor:
    """QEMU behind libvirt: answers by command."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.updates: list[str] = []
        self.calls: list[tuple[object, ...]] = []
        self.running, self.reason = 1, 1
        self.hear: Callable[..., None] | None = None

    def ask(self, _handle: object, command: str, flags: int) -> str:
        if flags:
            return str(self.answers[command.split(maxsplit=1)[0]])
        answer = self.answers[json.loads(command)["execute"].replace("-", "_")]
        if isinstance(answer, Exception):
            raise answer
        return json.dumps({"return": answer})

    def XMLDesc(self) -> str:  # noqa: N802  # libvirt's name
        return LIVE.read_text()

    def updateDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802  # libvirt's name
        self.updates.append(xml)

    def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802  # libvirt's name
        self.calls.append(("attach", xml, flags))

    def detachDeviceAlias(self, alias: str, flags: int) -> None:  # noqa: N802  # libvirt's name
        self.calls.append(("detach", alias, flags))

    def register(self, _connection: object, _handle: object, events: str, hear: Any, *rest: object) -> int:
        self.calls.append(("register", events, *rest))
        self.hear = hear
        return 7

    def deregister(self, _connection: object, callback: int) -> None:
        self.calls.append(("deregister", callback))

    def destroy(self) -> None:
        self.calls.append(("destroy",))

    def says(self, event: str, data: object) -> None:
        """As libvirt calls back: connection, domain, event, seconds, microseconds, data, opaque."""
        assert self.hear is not None, "nothing listens"
        self.hear(None, None, event, 1, 2, None if data is None else json.dumps(data), None)

    def name(self) -> str:
        return "guest"

    def UUIDString(self) -> str:  # noqa: N802  # libvirt's name
        return "no such uuid"

    def state(self) -> tuple[int, int]:
        if not self.running:
            raise FakeError("no such domain")
        return self.running, self.reason


def install(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As libvirt_qemu, which has QEMU's monitor."""
    libvirt_qemu = SimpleNamespace(
        qemuMonitorCommand=monitor.ask,
        qemuMonitorEventRegister=monitor.register,
        qemuMonitorEventDeregister=monitor.deregister,
        VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP=1,
        VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX=1,
    )
    monkeypatch.setitem(sys.modules, "libvirt_qemu", libvirt_qemu)


def domain(monitor: Monitor, monkeypatch: pytest.MonkeyPatch, uri: str = "qemu:///system") -> LibvirtDomain:
    install(monitor, monkeypatch)
    libvirt: Any = SimpleNamespace(
        libvirtError=FakeError,
        VIR_DOMAIN_RUNNING=1,
        VIR_DOMAIN_PAUSED=3,
        VIR_DOMAIN_PAUSED_UNKNOWN=0,
        VIR_DOMAIN_PAUSED_IOERROR=5,
        VIR_DOMAIN_PAUSED_WATCHDOG=6,
        VIR_DOMAIN_PAUSED_CRASHED=10,
        VIR_DOMAIN_AFFECT_LIVE=1,
        VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE=1,
    )
    connection = SimpleNamespace(getURI=lambda: uri, domainEventRegisterAny=lambda *_: 3)
    return LibvirtDomain(libvirt, connection, monitor, HostShell())


def test_where_qemu_has_a_guests_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Host virtual address for 0x100000 (pc.ram) is 0x7f5a8be00000\r\n"
    assert domain(Monitor(gpa2hva=said), monkeypatch).host_address(MIB) == 0x7F5A8BE00000


MIB = 1 << 20


@pytest.mark.parametrize(
    "said",
    [
        "No memory is mapped at address 0x100000\r\n",
        "Memory at address 0x100000 is not RAM\r\n",
        "",
        "unknown command: 'gpa2hva'",
    ],
)
def test_memory_that_qemu_does_not_have(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    with pytest.raises(InfrastructureError, match="maps no memory at 0x100000") as refused:
        domain(Monitor(gpa2hva=said), monkeypatch).host_address(MIB)
    assert refused.value.details == said.strip()


def test_the_virtio_mem_device_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "memaddr": 4 << 30,
        "size": 426,
        "requested-size": 0,
        "max-size": 2048,
        "block-size": 2,
        "node": 0,
    }
    monitor = Monitor(
        query_memory_devices=[{"type": "dimm", "data": {}}, {"type": "virtio-mem", "data": data}]
    )
    assert domain(monitor, monkeypatch).virtio_mem() == VirtioMemState(4 << 30, 426, 0, 2048, 2)
    assert domain(Monitor(query_memory_devices=[]), monkeypatch).virtio_mem() is None


def test_a_request_is_for_what_libvirt_itself_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    domain(monitor, monkeypatch).request_virtio_mem(64 * MIB)
    (update,) = monitor.updates
    assert ">65536</requested>" in update
    assert "virtiomem0" in update


def dimm(name: str, slot: int, address: int) -> dict[str, object]:
    """A DIMM as QEMU 10.0 describes it."""
    data = {"id": name, "slot": slot, "addr": address, "size": 128 * MIB, "node": 0, "hotplugged": True}
    return {"type": "dimm", "data": {**data, "memdev": f"/objects/mem{name}", "hotpluggable": True}}


def test_dimms_are_told_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [dimm("dimm1", 1, 6 << 30), {"type": "virtio-mem", "data": {}}, dimm("dimm0", 0, 5 << 30)]
    assert domain(Monitor(query_memory_devices=devices), monkeypatch).dimms() == (
        Dimm("dimm0", 0, 5 << 30, 128 * MIB),
        Dimm("dimm1", 1, 6 << 30, 128 * MIB),
    )
    assert domain(Monitor(query_memory_devices=[]), monkeypatch).dimms() == ()


def test_a_dimm_is_plugged_and_asked_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    guest = domain(monitor, monkeypatch)
    guest.attach_dimm(256 * MIB)
    guest.request_dimm_removal("dimm0")
    (_, xml, live), detach = monitor.calls
    assert 'model="dimm"' in str(xml)
    assert ">262144</size>" in str(xml)
    assert (live, detach) == (1, ("detach", "dimm0", 1))
    guest.attach_dimm(256 * MIB, "ua-x")
    assert '<alias name="ua-x"/>' in str(monitor.calls[-1][1])
    assert guest.libvirt_uri == "qemu:///system"


def test_answers_of_a_guest_are_heard_in_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    guest = domain(monitor, monkeypatch)
    assert guest.dimm_answers() == ()
    ((_, events, _, flags),) = monitor.calls
    assert (flags, re.fullmatch(str(events), "ACPI_DEVICE_OST") is not None) == (1, True)
    info = {"device": "dimm0", "slot": "0", "slot-type": "DIMM", "source": 3, "status": 132}
    monitor.says("ACPI_DEVICE_OST", {"info": info})
    monitor.says("ACPI_DEVICE_OST", {"info": {**info, "slot-type": "CPU"}})
    monitor.says("MEM_UNPLUG_ERROR", {"device": "dimm0", "msg": "in use"})
    monitor.says("DEVICE_UNPLUG_GUEST_ERROR", {"path": "/machine/peripheral/dimm0"})
    monitor.says("DEVICE_DELETED", {"device": "dimm0", "path": "/machine/peripheral/dimm0"})
    del info["device"]
    monitor.says("ACPI_DEVICE_OST", {"info": {**info, "status": 0}})
    assert guest.wait_memory_event(0), "whoever waits for a device is woken"
    assert guest.dimm_answers() == (
        DimmAnswer("dimm0", 0, 3, 0x84),
        DimmAnswer("dimm0", None, None, None, "in use"),
        DimmAnswer("", None, None, None, "the guest refused"),
        DimmAnswer("", 0, 3, 0),
    )
    assert guest.dimm_answers() == ()
    assert len(monitor.calls) == 1, "it listens once"
    guest.destroy()
    assert monitor.calls[1:] == [("deregister", 7), ("destroy",)]


def test_a_guest_that_answers_without_end_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    guest = domain(monitor, monkeypatch)
    guest.dimm_answers()
    said = {"info": {"slot": "0", "slot-type": "DIMM", "source": 3, "status": 132}}
    for _ in range(10_100):
        monitor.says("ACPI_DEVICE_OST", said)
    assert len(guest.dimm_answers()) == 10_000


def test_a_guest_that_is_lost_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = domain(Monitor(query_balloon=FakeError("Domain not found")), monkeypatch)
    with pytest.raises(InfrastructureError) as error:
        lost.balloon_bytes()
    assert error.value.details == "Domain not found"


@pytest.mark.parametrize(
    ("state", "reason", "why"),
    [(3, 5, "io-error"), (3, 1, ""), (1, 5, ""), (3, 11, ""), (3, 0, "internal-error")],
)
def test_why_qemu_stopped_the_vcpus(
    monkeypatch: pytest.MonkeyPatch, state: int, reason: int, why: str
) -> None:
    """Not where we asked it to, for a snapshot (VIR_DOMAIN_PAUSED_USER is 1)."""
    monitor = Monitor(query_status={"status": "internal-error", "running": False})
    monitor.running, monitor.reason = state, reason
    paused = domain(monitor, monkeypatch)
    assert paused.is_running()
    assert paused.why_paused() == why


def test_what_qemu_says_of_its_end_is_kept_from_the_start_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    guest = domain(monitor, monkeypatch)
    guest.listen()
    assert re.fullmatch(str(monitor.calls[0][1]), "SHUTDOWN")
    assert re.fullmatch(str(monitor.calls[0][1]), "BLOCK_IO_ERROR")
    monitor.says("NETDEV_STREAM_DISCONNECTED", {"netdev-id": "hostnet0"})
    monitor.says("SHUTDOWN", {"guest": True, "reason": "guest-reset"})
    assert [(one.name, dict(one.data)) for one in guest.happened()] == [
        ("NETDEV_STREAM_DISCONNECTED", {"netdev-id": "hostnet0"}),
        ("SHUTDOWN", {"guest": True, "reason": "guest-reset"}),
    ]
    for _ in range(1000):
        monitor.says("BLOCK_IO_ERROR", None)
    assert len(guest.happened()) == 64
    assert guest.exit_status() is None


@pytest.mark.parametrize(("state", "runs"), [(1, True), (3, True), (5, False), (6, False), (0, False)])
def test_whether_it_runs(monkeypatch: pytest.MonkeyPatch, state: int, runs: bool) -> None:
    monitor = Monitor()
    monitor.running = state
    assert domain(monitor, monkeypatch).is_running() is runs


def test_what_ended_it_is_told_by_libvirt_the_kernel_and_qemu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log" / "qemu" / "guest.log"
    log.parent.mkdir(parents=True)
    words = "".join(f"-device {number} \\\n" for number in range(50))
    log.write_text(f"{words}-msg timestamp=on\nerror: kvm run failed\n")
    monitor = Monitor()
    monitor.running = 0
    lost = domain(monitor, monkeypatch, f"qemu:///embed?root={tmp_path}")
    killed = "Out of memory: Killed process 7 (qemu-system-x86)"
    monkeypatch.setitem(
        reader.CALLS, "kernel_log", lambda words, _: [killed] if "qemu-system" in words else []
    )
    assert not lost.is_running()
    said = lost.why_ended().splitlines()
    assert said == ["no such domain", killed, "error: kvm run failed"], "without the command line"


def test_a_signal_while_qemu_is_ended_waits_until_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def destroy() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("destroyed")

    libvirt: Any = SimpleNamespace(libvirtError=FakeError, VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE=1)
    connection = SimpleNamespace(
        createXML=lambda _xml, _flags: SimpleNamespace(destroy=destroy),
        domainEventRegisterAny=lambda *_: 1,
        domainEventDeregisterAny=lambda _: None,
    )
    host = LibvirtHost(libvirt, connection, "test:///", HostShell(), Path(), cache=Path())

    def one_guest() -> None:
        with host.domain("<domain/>"):
            pass
        host.wait_for_ends()

    with pytest.raises(KeyboardInterrupt), stop_at_signals():
        one_guest()
    host.wait_for_ends()
    assert done == ["destroyed"]


def test_a_signal_while_qemu_is_started_leaves_no_qemu_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def start(_xml: str, _flags: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("started")
        return SimpleNamespace(destroy=lambda: done.append("destroyed"))

    libvirt: Any = SimpleNamespace(libvirtError=FakeError, VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE=1)
    host = LibvirtHost(
        libvirt, SimpleNamespace(createXML=start), "test:///", HostShell(), Path(), cache=Path()
    )
    with pytest.raises(KeyboardInterrupt), stop_at_signals(), host.domain("<domain/>"):
        pytest.fail("the block began all the same")
    host.wait_for_ends()
    assert done == ["started", "destroyed"]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("/dev/null open: Too many open files", "ulimit -n"),
        ("No interface with a routable interface for IPv4", "ip route add default"),
        ("no such device", "orchestrator doctor"),
    ],
)
def test_a_guest_that_does_not_start_says_what_helps(said: str, hint: str) -> None:
    def start(_xml: str, _flags: int) -> Any:
        raise FakeError(f"passt failed:\nFailed to send 51 bytes to syslog\n{said}")

    libvirt: Any = SimpleNamespace(libvirtError=FakeError)
    host = LibvirtHost(
        libvirt, SimpleNamespace(createXML=start), "test:///", HostShell(), Path(), cache=Path()
    )
    with pytest.raises(InfrastructureError) as caught, host.domain("<domain/>"):
        pytest.fail("it began all the same")
    assert hint in caught.value.hint
    assert caught.value.details == f"passt failed:\n{said}"


def test_the_next_guest_begins_when_the_one_before_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that were started from one saved state have one name."""
    done: list[str] = []

    def destroy() -> None:
        time.sleep(0.2)
        done.append("gone")

    def start(_xml: str, _flags: int) -> Any:
        done.append("started")
        monitor = Monitor()
        monitor.destroy = destroy  # type: ignore[method-assign]  # slower
        return monitor

    install(Monitor(), monkeypatch)
    libvirt: Any = SimpleNamespace(libvirtError=FakeError, VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE=1)
    connection = SimpleNamespace(
        createXML=start, domainEventRegisterAny=lambda *_: 1, domainEventDeregisterAny=lambda _: None
    )
    host = LibvirtHost(libvirt, connection, "test:///", HostShell(), Path(), cache=Path())
    for _ in range(2):
        with host.domain("<domain/>"):
            pass
        done.append("summed up")
    host.wait_for_ends()
    assert done == ["started", "summed up", "gone", "started", "summed up", "gone"]


class BusyError(FakeError):
    """With libvirt's number of what went wrong."""

    def __init__(self, code: int) -> None:
        super().__init__("cannot acquire state change lock")
        self.code = code

    def get_error_code(self) -> int:
        return self.code


def test_which_domains_are_migrated_or_backed_up() -> None:
    """By the constants of the real binding, and what it gives for each."""
    import libvirt

    def one(name: str, job: object) -> Any:
        def stats() -> object:
            if isinstance(job, Exception):
                raise job
            return job

        return SimpleNamespace(name=lambda: name, jobStats=stats)

    running = [
        one("idle", {"type": libvirt.VIR_DOMAIN_JOB_NONE}),
        one(
            "leaves",
            {
                "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
                "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
            },
        ),
        one(
            "saved",
            {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP},
        ),
        one("strange", {"type": libvirt.VIR_DOMAIN_JOB_BOUNDED}),
        one("silent", BusyError(libvirt.VIR_ERR_OPERATION_TIMEOUT)),
        one("ended", BusyError(libvirt.VIR_ERR_NO_DOMAIN)),
        one("stopped", BusyError(libvirt.VIR_ERR_OPERATION_INVALID)),
    ]
    constants = {name: getattr(libvirt, name) for name in dir(libvirt) if name.startswith("VIR_")}
    module = SimpleNamespace(**constants, libvirtError=FakeError)
    connection = SimpleNamespace(listAllDomains=lambda flags: running if flags == 1 else [])
    assert LibvirtDomain(module, connection, None, HostShell()).busy() == {
        "leaves": "migration out",
        "saved": "backup",
        "strange": "a job",
        "silent": "cannot acquire state change lock",
    }


def test_what_its_xml_says_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = domain(Monitor(), monkeypatch).memory()
    assert found.boot > 0
    assert f"<uuid>{found.uuid}</uuid>" in LIVE.read_text()


def test_what_libvirt_does_not_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a signal has stopped QEMU; nothing more is asked until it answers, and then all is well."""
    goes_on, monitor = threading.Event(), Monitor()
    stopped = domain(monitor, monkeypatch)
    monkeypatch.setattr(LibvirtDomain._call, "__kwdefaults__", {"seconds": 0.05})
    monkeypatch.setattr(monitor, "XMLDesc", lambda: LIVE.read_text() if goes_on.wait() else "")
    with pytest.raises(InfrastructureError, match="gave no answer about the guest within"):
        stopped.memory()
    with pytest.raises(InfrastructureError, match="has not answered yet"):
        stopped.memory()
    assert stopped.is_running(), "that is no question to QEMU"
    goes_on.set()
    for thread in stopped._unanswered:
        thread.join(5)
    assert stopped.memory() is not None


def test_a_libvirt_that_does_not_say_whether_a_guest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, monitor = threading.Event(), Monitor()
    stopped = domain(monitor, monkeypatch)
    monkeypatch.setattr(libvirt_domain, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(monitor, "state", goes_on.wait)
    assert not stopped.is_running()
    assert "did not say" in stopped._trouble
    goes_on.set()

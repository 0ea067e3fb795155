"""The libvirt side of a domain, with its handle faked: what QEMU answers, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import InfrastructureError
from orchestrator.host.domain import VirtioMemState
from orchestrator.host.libvirt_host import LibvirtDomain, LibvirtHost

LIVE = Path(__file__).with_name("golden") / "live-domain.xml"


class FakeError(Exception):
    """libvirt.libvirtError."""


class Monitor:
    """QEMU behind libvirt: answers by command."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.updates: list[str] = []
        self.running = 1

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

    def state(self) -> tuple[int, int]:
        if not self.running:
            raise FakeError
        return self.running, 0


def domain(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> LibvirtDomain:
    libvirt_qemu = SimpleNamespace(qemuMonitorCommand=monitor.ask, VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP=1)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", libvirt_qemu)
    libvirt: Any = SimpleNamespace(
        libvirtError=FakeError, VIR_DOMAIN_RUNNING=1, VIR_DOMAIN_PAUSED=3, VIR_DOMAIN_AFFECT_LIVE=1
    )
    return LibvirtDomain(libvirt, SimpleNamespace(), monitor)


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


def test_a_guest_that_is_lost_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = domain(Monitor(query_balloon=FakeError("Domain not found")), monkeypatch)
    with pytest.raises(InfrastructureError) as error:
        lost.balloon_bytes()
    assert error.value.details == "Domain not found"


@pytest.mark.parametrize(("state", "runs"), [(1, True), (3, True), (5, False), (6, False), (0, False)])
def test_whether_it_runs(monkeypatch: pytest.MonkeyPatch, state: int, runs: bool) -> None:
    monitor = Monitor()
    monitor.running = state
    assert domain(monitor, monkeypatch).is_running() is runs


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
    host = LibvirtHost(libvirt, connection, "test:///")
    with pytest.raises(KeyboardInterrupt), stop_at_signals(), host.domain("<domain/>"):
        pass
    assert done == ["destroyed"]

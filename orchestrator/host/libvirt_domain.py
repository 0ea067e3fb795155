"""A running domain of libvirt, and QEMU's monitor behind it."""

from __future__ import annotations

import json
import queue
import re
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from orchestrator.errors import InfrastructureError
from orchestrator.host.bounded import UnansweredError, call_within
from orchestrator.host.domain import Dimm, DimmAnswer, Domain, MonitorEvent, QemuProcess, VirtioMemState
from orchestrator.host.domain_memory import DomainMemory, read_domain
from orchestrator.host.domain_xml import RunFiles, dimm_device, disk_path, run_files, virtio_mem_request
from orchestrator.host.monitor_replies import (
    OF_ANOTHER_SHAPE,
    dimm_answer,
    dimms_of,
    event_data,
    pci_memory_of,
    virtio_mem_of,
)
from orchestrator.host.orphans import exit_status
from orchestrator.host.shell import HostShell
from orchestrator.jsontext import parse_json
from orchestrator.printable import clean
from orchestrator.units import KIB

T = TypeVar("T")

# hmp_gpa2hva(), monitor/hmp-cmds.c. Its refusals have an "is" and an address as well.
_HOST_ADDRESS = re.compile(r"^Host virtual address for 0x[0-9a-f]+ \(.*\) is (0x[0-9a-f]+)\s*$")

# What QEMU tells of a DIMM that it or the guest answers for (qapi/acpi.json, machine.json, qdev.json).
_DIMM_EVENTS = "^(ACPI_DEVICE_OST|MEM_UNPLUG_ERROR|DEVICE_UNPLUG_GUEST_ERROR|DEVICE_DELETED)$"

# What QEMU says of an end or a stop, its own or the guest's (qapi/run-state.json, block-core.json,
# net.json).
_TROUBLE_EVENTS = "^(SHUTDOWN|RESET|GUEST_PANICKED|BLOCK_IO_ERROR|NETDEV_STREAM_DISCONNECTED|MEMORY_FAILURE)$"
_MOST_EVENTS = 64
_BY_ITSELF = frozenset({"internal-error", "io-error", "watchdog", "guest-panicked"})

# As the kernel names QEMU and its vCPU threads where it kills them or they fault.
_OF_QEMU = ("qemu-system", "/KVM[")
_RECENT_SECONDS = 60.0
_MOST_LINES = 12

# A QEMU that a signal has stopped answers nothing, and libvirt waits for it without an end. Its monitor is
# served beside the vCPUs, so that a busy guest takes no such time; to write its memory out takes longer.
CALL_SECONDS = 60.0
_SAVE_SECONDS = 900.0

_MOST_ANSWERS = 10_000  # that wait to be asked for; a guest can answer as often as it likes


class LibvirtDomain(Domain):
    """A running domain; the real side of `orchestrator.host.domain.Domain`."""

    def __init__(
        self, libvirt: Any, connection: Any, handle: Any, shell: HostShell
    ) -> None:  # libvirt has no types
        self._libvirt = libvirt
        self._connection = connection
        self._handle = handle
        self._trouble = ""
        self._paused, self._reason = False, 0
        self._event = threading.Event()
        self._callback: int | None = None
        self._monitor_callback: int | None = None
        self._trouble_callback: int | None = None
        self._happened: deque[MonitorEvent] = deque(maxlen=_MOST_EVENTS)
        self._answers: queue.Queue[DimmAnswer] = queue.Queue(_MOST_ANSWERS)
        self._shell = shell
        self._qemu: QemuProcess | None = None
        self._unanswered: list[threading.Thread] = []

    def listen(self) -> None:
        """Begin to receive events: of memory devices, and of what ends a guest."""
        self._callback = self._connection.domainEventRegisterAny(
            self._handle,
            self._libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
            lambda *_: self._event.set(),
            None,
        )
        self._trouble_callback = self._on_monitor(_TROUBLE_EVENTS, self._note)
        with suppress(InfrastructureError, OSError):  # once it has ended, nothing says which process it was
            _ = self.qemu

    @property
    def qemu(self) -> QemuProcess:
        """Its QEMU, found by UUID and disk on a command line of the host.

        All that were started from one saved state have the same UUID, but a disk of their own each.
        """
        if self._qemu is None:
            uuid = self._handle.UUIDString()
            disk = disk_path(self._call(self._handle.XMLDesc))
            pid = self._shell.find_process("qemu-system", uuid, disk)
            if pid is None:
                raise InfrastructureError(f"the guest's QEMU process is not on {self._shell.name}")
            self._qemu = QemuProcess(pid, self._shell)
        return self._qemu

    @property
    def libvirt_uri(self) -> str:
        """Its libvirt, as it is called on its own host."""
        return str(self._call(self._connection.getURI)) if self._shell.is_here else "qemu:///system"

    def is_running(self) -> bool:
        """False once QEMU has ended or the guest has stopped, for whatever reason."""
        try:
            state, self._reason = call_within(CALL_SECONDS, self._handle.state)
        except self._libvirt.libvirtError as error:
            self._trouble = str(error)
            return False
        except UnansweredError:
            self._trouble = f"libvirt did not say within {CALL_SECONDS:.0f} s whether the guest runs"
            return False
        self._paused = state == self._libvirt.VIR_DOMAIN_PAUSED
        return bool(state in {self._libvirt.VIR_DOMAIN_RUNNING, self._libvirt.VIR_DOMAIN_PAUSED})

    def why_paused(self) -> str:
        """Why QEMU has stopped the vCPUs by itself; empty where it has not, or we asked it to.

        As of the last `is_running`: elsewhere each question costs the host that is measured. In the words of
        QEMU's RunState (qapi/run-state.json).
        """
        libvirt = self._libvirt
        if not self._paused:
            return ""
        if self._reason == libvirt.VIR_DOMAIN_PAUSED_UNKNOWN:  # libvirt did not ask for it, nor knows who did
            status = self._qmp("query-status", lambda found: str(found["status"]))
            return status if status in _BY_ITSELF else ""
        known = {
            libvirt.VIR_DOMAIN_PAUSED_IOERROR: "io-error",
            libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
            libvirt.VIR_DOMAIN_PAUSED_CRASHED: "guest-panicked",
        }
        return known.get(self._reason, "")

    def happened(self) -> tuple[MonitorEvent, ...]:
        """The last events of QEMU's monitor that are of an end or a stop, oldest first."""
        return tuple(self._happened)

    def exit_status(self) -> int | None:
        """Of its QEMU, -N for signal N; None while it runs, and where another process is its parent."""
        return exit_status(self._qemu.pid) if self._qemu and self._shell.is_here else None

    def passt(self) -> int | None:
        """The passt that forwards its ssh."""
        return self._shell.find_process("passt", f"127.0.0.1/{self.files().ssh_port}:22")

    def memory(self) -> DomainMemory:
        """What its XML says of its memory."""
        found = read_domain(self._call(self._handle.XMLDesc))
        if found is None:
            raise InfrastructureError(f"libvirt's XML of {self._handle.name()} says nothing of its memory")
        return found

    def busy(self) -> dict[str, str]:
        """Domains of the connection with a job, this one among them or not; one that does not tell counts as
        busy."""
        libvirt, found = self._libvirt, {}
        names = {
            getattr(libvirt, name): name.rpartition("_OPERATION_")[2].lower().replace("_", " ")
            for name in dir(libvirt)
            if name.startswith("VIR_DOMAIN_JOB_OPERATION_")
        }
        for one in self._call(self._connection.listAllDomains, libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            try:
                job = one.jobStats()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in {
                    libvirt.VIR_ERR_NO_DOMAIN,
                    libvirt.VIR_ERR_OPERATION_INVALID,
                }:
                    found[one.name()] = str(error)
                continue  # else it has ended
            if job.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE:
                found[one.name()] = names.get(job.get("operation"), "a job")
        return found

    def why_ended(self) -> str:
        """What is known of a guest that has ended: by libvirt, by the kernel of its host, and by QEMU."""
        said = [self._trouble] if self._trouble else []
        # A host that has gone, too, tells nothing.
        with suppress(InfrastructureError, OSError):
            said += self._shell.kernel_log(*_OF_QEMU, seconds=_RECENT_SECONDS)[-_MOST_LINES:]
            last = ["tail", "-n", str(_MOST_LINES), str(self._log())]
            lines = self._shell.run(last, seconds=_RECENT_SECONDS, check=False).splitlines()
            said += [line for line in lines if not line.startswith("-")]  # the rest is QEMU's command line
        return "\n".join(line[:300] for line in said)

    def _log(self) -> Path:
        """Where libvirt keeps what QEMU prints (virQEMUDriverConfigNew(), qemu_conf.c)."""
        uri = urlsplit(self._call(self._connection.getURI))
        root = parse_qs(uri.query).get("root")
        logs = Path(root[0], "log") if root else Path("/var/log/libvirt")
        return logs / "qemu" / f"{self._handle.name()}.log"

    def virtio_mem(self) -> VirtioMemState | None:
        """The virtio-mem device, as QEMU sees it."""
        return self._qmp("query-memory-devices", virtio_mem_of)

    def pci_memory(self) -> tuple[list[tuple[int, int]], int]:
        """QEMU's `query-pci` (qapi/pci.json)."""
        return self._qmp("query-pci", pci_memory_of)

    def request_virtio_mem(self, size_bytes: int) -> None:
        """Ask the guest to plug or unplug until `size_bytes` are plugged."""
        self._event.clear()
        xml = virtio_mem_request(self._call(self._handle.XMLDesc), size_bytes)
        self._call(self._handle.updateDeviceFlags, xml, self._live)

    def wait_memory_event(self, seconds: float) -> bool:
        """Wait for the next event of a memory device."""
        came = self._event.wait(seconds)
        self._event.clear()
        return came

    def dimms(self) -> tuple[Dimm, ...]:
        """The plugged pc-dimm devices; their ids in QEMU are libvirt's aliases."""
        return self._qmp("query-memory-devices", dimms_of)

    def attach_dimm(self, size_bytes: int, alias: str = "") -> None:
        """Plug a pc-dimm; libvirt gives it the next free alias if it has none, QEMU a slot and an address."""
        self._call(self._handle.attachDeviceFlags, dimm_device(size_bytes, alias), self._live)

    def request_dimm_removal(self, alias: str) -> None:
        """Ask the guest to eject a pc-dimm. Unlike the call by XML, this one does not wait for it."""
        self._call(self._handle.detachDeviceAlias, alias, self._live)

    def dimm_answers(self) -> tuple[DimmAnswer, ...]:
        """What was said of DIMMs since the last call; begins to listen at the first one."""
        if self._monitor_callback is None:
            self._monitor_callback = self._on_monitor(_DIMM_EVENTS, self._heard)
        # Only this side takes out, so what is there now can be had without waiting.
        return tuple(self._answers.get_nowait() for _ in range(self._answers.qsize()))

    def request_balloon(self, size_bytes: int) -> None:
        """Set the balloon's target."""
        self._call(self._handle.setMemoryFlags, size_bytes // KIB, self._live)

    def balloon_bytes(self) -> int:
        """QEMU's `query-balloon`: actual."""
        return self._qmp("query-balloon", lambda balloon: int(balloon["actual"]))

    def balloon_statistics(self) -> dict[str, int]:
        """libvirt's balloon statistics."""
        statistics: dict[str, int] = self._call(self._handle.memoryStats)
        return statistics

    def files(self) -> RunFiles:
        """Where its disk, its console and its port are, on the host."""
        try:
            return run_files(self._call(self._handle.XMLDesc))
        except ValueError as error:
            raise InfrastructureError("libvirt describes another domain", details=str(error)) from error

    def save(self, memory: Path) -> None:
        """Write the guest's memory and devices to a file, and end QEMU. The domain is gone then."""
        self._call(self._handle.save, str(memory), seconds=_SAVE_SECONDS)

    def suspend(self) -> None:
        """Stop the vCPUs."""
        self._call(self._handle.suspend)

    def resume(self) -> None:
        """Let the vCPUs run again."""
        self._call(self._handle.resume)

    def host_address(self, guest_physical: int) -> int:
        """HMP `gpa2hva`: "Host virtual address for 0x... (pc.ram) is 0x..."."""
        answer = self._hmp(f"gpa2hva {guest_physical:#x}")
        found = _HOST_ADDRESS.search(answer)
        if found is None:
            raise InfrastructureError(f"QEMU maps no memory at {guest_physical:#x}", details=answer.strip())
        return int(found[1], 16)

    def destroy(self) -> None:
        """End QEMU at once, if it still runs."""
        self.stop_listening()
        with suppress(self._libvirt.libvirtError):  # it may have ended by itself
            self._handle.destroy()

    def stop_listening(self) -> None:
        """No more events."""
        for callback in (self._monitor_callback, self._trouble_callback):
            if callback is not None:
                import libvirt_qemu

                with suppress(self._libvirt.libvirtError):  # as below
                    libvirt_qemu.qemuMonitorEventDeregister(self._connection, callback)
        self._monitor_callback = self._trouble_callback = None
        if self._callback is not None:
            # The connection may be gone, and its callbacks with it.
            with suppress(self._libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(self._callback)
            self._callback = None

    @property
    def _live(self) -> int:
        flag: int = self._libvirt.VIR_DOMAIN_AFFECT_LIVE
        return flag

    def _on_monitor(self, events: str, hear: Callable[..., None]) -> int:
        """Have `hear` called for events of QEMU's monitor."""
        import libvirt_qemu

        callback: int = self._call(
            libvirt_qemu.qemuMonitorEventRegister,
            self._connection,
            self._handle,
            events,
            hear,
            None,
            libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
        )
        return callback

    def _note(self, _connection: object, _domain: object, event: str, *rest: Any) -> None:
        self._happened.append(MonitorEvent(event, event_data(rest[2])))  # as in `_heard`

    def _heard(self, _connection: object, _domain: object, event: str, *rest: Any) -> None:
        # rest: seconds, microseconds, the event's data as JSON, our opaque.
        answer = dimm_answer(event, rest[2])
        if answer:
            with suppress(queue.Full):  # Linux answers twice for a request
                self._answers.put_nowait(answer)
        self._event.set()

    def _qmp(self, command: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of QEMU's answer. Raises InfrastructureError for one that has another shape."""
        import libvirt_qemu

        answer = self._call(
            libvirt_qemu.qemuMonitorCommand, self._handle, json.dumps({"execute": command}), 0
        )
        try:
            return read(parse_json(answer)["return"])
        except OF_ANOTHER_SHAPE as error:
            raise InfrastructureError(
                f"QEMU answered {command} in another form than it has",
                details=clean(answer, 400),
                hint="orchestrator doctor",
            ) from error

    def _hmp(self, command: str) -> str:
        import libvirt_qemu

        flag = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        answer: str = self._call(libvirt_qemu.qemuMonitorCommand, self._handle, command, flag)
        return answer

    def _call(
        self, function: Any, *arguments: Any, seconds: float = CALL_SECONDS
    ) -> Any:  # libvirt-python has no types
        self._unanswered = [thread for thread in self._unanswered if thread.is_alive()]
        if self._unanswered:  # libvirt puts one question to QEMU at a time
            raise InfrastructureError("QEMU has not answered yet what libvirt asked it before")
        try:
            return call_within(seconds, function, *arguments)
        except UnansweredError as late:
            self._unanswered.append(late.thread)
            raise InfrastructureError(
                f"libvirt gave no answer about the guest within {seconds:.0f} s"
            ) from late
        except self._libvirt.libvirtError as error:
            raise InfrastructureError("libvirt refused or lost the guest", details=str(error)) from error

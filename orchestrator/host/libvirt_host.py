"""libvirt-python, and nothing else in the project imports it.

The default connection is libvirt's embedded driver (https://libvirt.org/drvqemu.html, "Embedded
driver"): libvirt inside this process, its state below one folder, no daemon.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host.domain import Dimm, DimmAnswer, VirtioMemState
from orchestrator.host.domain_xml import (
    RunFiles,
    dimm_device,
    disk_path,
    domain_name,
    relocated_xml,
    run_files,
    virtio_mem_request,
)
from orchestrator.host.qemu_process import QemuProcess
from orchestrator.host.runtime import kill_guests
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget, user_target
from orchestrator.interrupts import deferred
from orchestrator.units import KIB

# QEMU runs with the rights of whoever runs the orchestrator: embedded libvirt has no daemon with
# more, and files need no change of owner. cgroups and mount namespaces would need systemd or root.
_QEMU_CONF = """\
user = "+{uid}"
group = "+{gid}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
"""

# hmp_gpa2hva(), monitor/hmp-cmds.c. Its refusals have an "is" and an address as well.
_HOST_ADDRESS = re.compile(r"^Host virtual address for 0x[0-9a-f]+ \(.*\) is (0x[0-9a-f]+)\s*$")

# What QEMU tells of a DIMM that it or the guest answers for (qapi/acpi.json, machine.json, qdev.json).
_DIMM_EVENTS = "^(ACPI_DEVICE_OST|MEM_UNPLUG_ERROR|DEVICE_UNPLUG_GUEST_ERROR|DEVICE_DELETED)$"

_END_SECONDS = 30.0

# A host elsewhere that is silent for so long has gone (SILENCE_SECONDS of ssh is the same).
_KEEPALIVE_SECONDS, _KEEPALIVES = 10, 6

_MOST_ANSWERS = 10_000  # that wait to be asked for; a guest can answer as often as it likes

_EMBEDDED = "qemu:///embed"
_ANY_INTERFACE = (
    "passt wants a default route, even one that leads nowhere: ip tuntap add orch0 mode tap && "
    "ip addr add 192.0.2.1/24 dev orch0 && ip link set orch0 up && ip route add default dev orch0"
)

_loop_lock = threading.Lock()
_loop_running = False


def _libvirt(log: Path | None) -> ModuleType:
    """The module. libvirt reads where to log when it is first imported, so that comes first."""
    if log is not None:
        os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"3:file:{log}")
    import libvirt

    global _loop_running  # noqa: PLW0603  # libvirt has one event loop for the whole process
    with _loop_lock:
        if not _loop_running:
            # Else it prints every error on stderr; we raise them instead.
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_run_events, args=(libvirt,), name="libvirt events", daemon=True).start()
            _loop_running = True
    module: ModuleType = libvirt
    return module


def _run_events(libvirt: Any) -> None:  # libvirt-python has no types
    while True:
        libvirt.virEventRunDefaultImpl()


class LibvirtHost:
    """A libvirt connection, and a shell on the same machine."""

    def __init__(
        self,
        libvirt: Any,  # libvirt-python has no types
        connection: Any,
        uri: str,
        shell: HostShell,
        runtime: Path,
    ) -> None:
        self.runtime = runtime
        self._ending: list[threading.Thread] = []
        self._libvirt = libvirt
        self._connection = connection
        self.uri = uri
        self.shell = shell

    @property
    def versions(self) -> dict[str, str]:
        """Versions of libvirt and of the hypervisor behind the connection."""
        try:
            return {
                "libvirt": _version(self._connection.getLibVersion()),
                "qemu": _version(self._connection.getVersion()),
            }
        except self._libvirt.libvirtError as error:
            raise InfrastructureError(f"{self.uri} does not answer", details=str(error)) from error

    @property
    def embedded(self) -> bool:
        """Whether it is a driver of our own, in which no name of a domain is taken by others."""
        return self.uri.startswith(_EMBEDDED)

    @contextmanager
    def domain(self, xml: str, *, keep: bool = False) -> Iterator[LibvirtDomain]:
        """Start a transient domain; it is destroyed at the end, whatever happened.

        With `keep` it goes on running, unless something failed.
        """
        with self._started(lambda: self._connection.createXML(xml, 0), keep=keep) as domain:
            yield domain

    @contextmanager
    def restored_domain(self, memory: Path, files: RunFiles) -> Iterator[LibvirtDomain]:
        """Let a domain that was saved go on, with its files and its port replaced by those of this run.

        libvirt refuses an XML that changes what the guest sees (virDomainDefCheckABIStability), the
        domain's name and UUID among it.
        """

        def restore() -> Any:  # libvirt-python has no types
            saved = self._connection.saveImageGetXMLDesc(
                str(memory), self._libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
            )
            self._connection.restoreFlags(str(memory), relocated_xml(saved, files), 0)
            return self._connection.lookupByName(domain_name(saved))

        with self._started(restore) as domain:
            yield domain

    @contextmanager
    def running_domain(self, name: str) -> Iterator[LibvirtDomain]:
        """A domain that runs there already, and goes on running."""
        try:
            handle = self._connection.lookupByName(name)
        except self._libvirt.libvirtError as error:
            raise InfrastructureError(f"{self.shell.name} has no guest {name}", details=str(error)) from error
        domain = LibvirtDomain(self._libvirt, self._connection, handle, self.shell)
        domain.listen()
        try:
            yield domain
        finally:
            with deferred():
                domain.stop_listening()

    @contextmanager
    def _started(self, start: Callable[[], Any], *, keep: bool = False) -> Iterator[LibvirtDomain]:
        self.wait_for_ends()  # a name is free again once its QEMU has gone
        domain: LibvirtDomain | None = None
        try:
            # An interrupt between the start and the name for what was started would leave it to nobody.
            with deferred():
                domain = LibvirtDomain(self._libvirt, self._connection, self._handle_of(start), self.shell)
            domain.listen()
            yield domain
            if keep:
                domain.stop_listening()
                domain = None
        finally:
            if domain is not None:
                with deferred():
                    self._end(domain)

    def _end(self, domain: LibvirtDomain) -> None:
        """Begin to end it.

        Most of that is the kernel's work on QEMU's memory: a second or two, in which a trial is summed up.
        """
        thread = threading.Thread(target=domain.destroy, name="ending a guest", daemon=True)
        thread.start()
        self._ending.append(thread)

    def wait_for_ends(self) -> None:
        """Wait until every domain that was ended has gone; one that hangs has its QEMU killed."""
        with deferred():
            while self._ending:
                thread = self._ending.pop()
                thread.join(_END_SECONDS)
                if thread.is_alive():
                    kill_guests()
                    thread.join(_END_SECONDS)

    def _handle_of(self, start: Callable[[], Any]) -> Any:  # libvirt-python has no types
        try:
            return start()
        except self._libvirt.libvirtError as error:
            unrouted = "routable interface" in str(error)  # passt's own words (conf.c)
            raise InfrastructureError(
                "libvirt could not start the guest",
                details=str(error),
                hint=_ANY_INTERFACE if unrouted else "orchestrator doctor",
            ) from error


@contextmanager
def open_host(uri: str | SshTarget | None, runtime: Path, cache: Path) -> Iterator[LibvirtHost]:
    """Connect: to `uri`, to the libvirt of a machine, or to an embedded driver rooted in the runtime folder.

    `cache` keeps what libvirt learns of QEMU by starting it several times (4 s); libvirt itself
    checks that it still fits (virQEMUCapsIsValid).
    """
    libvirt = _libvirt(runtime / "libvirt.log")
    with ExitStack() as stack:
        shell = HostShell()
        if isinstance(uri, str) and urlsplit(uri).netloc:
            if not uri.startswith("qemu+ssh://"):
                raise BadInputError(f"{uri}: a host elsewhere is reached by qemu+ssh:// only")
            uri = user_target(uri, runtime)
        if isinstance(uri, SshTarget):
            shell = stack.enter_context(remote_shell(uri))
            uri = uri.libvirt_uri()
        elif uri is None:
            uri = f"{_EMBEDDED}?root={_embedded_root(runtime / 'v', cache)}"
        try:
            connection = libvirt.open(uri)
            stack.callback(connection.close)
            if not shell.is_here:
                connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVES)
        except libvirt.libvirtError as error:
            raise InfrastructureError(
                f"cannot connect to {uri}", details=str(error), hint="orchestrator doctor"
            ) from error
        if uri.startswith(_EMBEDDED):
            _let_passt_in(uri)
        host = LibvirtHost(libvirt, connection, uri, shell, runtime)
        stack.callback(host.wait_for_ends)
        yield host


def _embedded_root(root: Path, cache: Path) -> Path:
    """A folder for an embedded driver to live in, with our settings of QEMU."""
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(uid=os.getuid(), gid=os.getgid()))
    capabilities = cache / "libvirt"
    capabilities.mkdir(parents=True, exist_ok=True)
    (root / "cache").symlink_to(capabilities)
    return root


def _let_passt_in(uri: str) -> None:
    # Started as root, passt turns itself into `nobody` and then writes its socket and pid file here
    # (passt(1), --runas), so that user must be able to. Like /tmp: one's own files only.
    for root in parse_qs(urlsplit(uri).query).get("root", []):
        folder = Path(root) / "run" / "qemu" / "passt"
        if os.getuid() == 0 and folder.is_dir():
            folder.chmod(0o1777)


class LibvirtDomain:
    """A running domain; the real side of `orchestrator.host.domain.Domain`."""

    def __init__(
        self, libvirt: Any, connection: Any, handle: Any, shell: HostShell
    ) -> None:  # libvirt has no types
        self._libvirt = libvirt
        self._connection = connection
        self._handle = handle
        self.trouble = ""
        """What libvirt said when it was last asked whether the guest runs, and could not say yes."""
        self._event = threading.Event()
        self._callback: int | None = None
        self._monitor_callback: int | None = None
        self._answers: queue.Queue[DimmAnswer] = queue.Queue(_MOST_ANSWERS)
        self._shell = shell
        self._qemu: QemuProcess | None = None

    def listen(self) -> None:
        """Begin to receive memory-device-size-change events."""
        self._callback = self._connection.domainEventRegisterAny(
            self._handle,
            self._libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
            lambda *_: self._event.set(),
            None,
        )

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

    def is_running(self) -> bool:
        """False once QEMU has ended or the guest has stopped, for whatever reason."""
        try:
            state, _ = self._handle.state()
        except self._libvirt.libvirtError as error:
            self.trouble = str(error)
            return False
        return bool(state in {self._libvirt.VIR_DOMAIN_RUNNING, self._libvirt.VIR_DOMAIN_PAUSED})

    def virtio_mem(self) -> VirtioMemState | None:
        """The virtio-mem device, as QEMU sees it."""
        for device in self._qmp("query-memory-devices"):
            if device["type"] == "virtio-mem":
                data = device["data"]
                return VirtioMemState(
                    address=data["memaddr"],
                    size=data["size"],
                    requested=data["requested-size"],
                    maximum=data["max-size"],
                    block=data["block-size"],
                )
        return None

    def pci_memory(self) -> tuple[list[tuple[int, int]], int]:
        """QEMU's `query-pci` (qapi/pci.json)."""
        buses = self._qmp("query-pci")
        bars, count = [], 0
        while buses:
            count += 1
            for device in buses.pop()["devices"]:
                memory = (region for region in device["regions"] if region["type"] == "memory")
                bars += [(int(region["address"]), int(region["size"])) for region in memory]
                bridge = device.get("pci_bridge")
                if bridge:
                    buses.append({"devices": bridge.get("devices", [])})
        return sorted(bars), count

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
        devices = self._qmp("query-memory-devices")
        data = [device["data"] for device in devices if device["type"] == "dimm"]
        found = (Dimm(one["id"], int(one["slot"]), int(one["addr"]), int(one["size"])) for one in data)
        return tuple(sorted(found, key=lambda dimm: dimm.address))

    def attach_dimm(self, size_bytes: int) -> None:
        """Plug a pc-dimm; libvirt gives it the next free alias, QEMU a slot and an address."""
        self._call(self._handle.attachDeviceFlags, dimm_device(size_bytes), self._live)

    def request_dimm_removal(self, alias: str) -> None:
        """Ask the guest to eject a pc-dimm. Unlike the call by XML, this one does not wait for it."""
        self._call(self._handle.detachDeviceAlias, alias, self._live)

    def dimm_answers(self) -> tuple[DimmAnswer, ...]:
        """What was said of DIMMs since the last call; begins to listen at the first one."""
        if self._monitor_callback is None:
            self._listen_to_monitor()
        # Only this side takes out, so what is there now can be had without waiting.
        return tuple(self._answers.get_nowait() for _ in range(self._answers.qsize()))

    def request_balloon(self, size_bytes: int) -> None:
        """Set the balloon's target."""
        self._call(self._handle.setMemoryFlags, size_bytes // KIB, self._live)

    def balloon_bytes(self) -> int:
        """QEMU's `query-balloon`: actual."""
        return int(self._qmp("query-balloon")["actual"])

    def balloon_statistics(self) -> dict[str, int]:
        """libvirt's balloon statistics."""
        statistics: dict[str, int] = self._call(self._handle.memoryStats)
        return statistics

    def files(self) -> RunFiles:
        """Where its disk, its console and its port are, on the host."""
        return run_files(self._call(self._handle.XMLDesc))

    def save(self, memory: Path) -> None:
        """Write the guest's memory and devices to a file, and end QEMU. The domain is gone then."""
        self._call(self._handle.save, str(memory))

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
        if self._monitor_callback is not None:
            import libvirt_qemu

            with suppress(self._libvirt.libvirtError):  # as below
                libvirt_qemu.qemuMonitorEventDeregister(self._connection, self._monitor_callback)
            self._monitor_callback = None
        if self._callback is not None:
            # The connection may be gone, and its callbacks with it.
            with suppress(self._libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(self._callback)
            self._callback = None

    @property
    def _live(self) -> int:
        flag: int = self._libvirt.VIR_DOMAIN_AFFECT_LIVE
        return flag

    def _listen_to_monitor(self) -> None:
        import libvirt_qemu

        self._monitor_callback = self._call(
            libvirt_qemu.qemuMonitorEventRegister,
            self._connection,
            self._handle,
            _DIMM_EVENTS,
            self._heard,
            None,
            libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
        )

    def _heard(self, _connection: object, _domain: object, event: str, *rest: Any) -> None:
        # rest: seconds, microseconds, the event's data as JSON, our opaque.
        answer = dimm_answer(event, rest[2])
        if answer:
            with suppress(queue.Full):  # Linux answers twice for a request
                self._answers.put_nowait(answer)
        self._event.set()

    def _qmp(self, command: str) -> Any:  # QEMU's JSON
        import libvirt_qemu

        answer = self._call(
            libvirt_qemu.qemuMonitorCommand, self._handle, json.dumps({"execute": command}), 0
        )
        return json.loads(answer)["return"]

    def _hmp(self, command: str) -> str:
        import libvirt_qemu

        flag = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        answer: str = self._call(libvirt_qemu.qemuMonitorCommand, self._handle, command, flag)
        return answer

    def _call(self, function: Any, *arguments: Any) -> Any:  # libvirt-python has no types
        try:
            return function(*arguments)
        except self._libvirt.libvirtError as error:
            raise InfrastructureError("libvirt refused or lost the guest", details=str(error)) from error


def dimm_answer(event: str, data: str | None) -> DimmAnswer | None:
    """What an event of QEMU's monitor says of a DIMM; None when it says nothing that counts.

    The numbers of an ACPI_DEVICE_OST are the guest's own, 32 bits each; QEMU names the slot.
    """
    said: dict[str, Any] = json.loads(data or "{}")
    if event == "ACPI_DEVICE_OST":
        info = said["info"]
        if info["slot-type"] != "DIMM":
            return None
        return DimmAnswer(info.get("device", ""), int(info["slot"]), info["source"], info["status"])
    if event in {"MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR"}:
        error = said.get("msg") or "the guest refused"
        return DimmAnswer(said.get("device", ""), None, None, None, error)
    return None


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

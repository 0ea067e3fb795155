"""A connection to libvirt. Only this module and `libvirt_domain` know libvirt-python.

The default connection is libvirt's embedded driver (https://libvirt.org/drvqemu.html, "Embedded
driver"): libvirt inside this process, its state below one folder, no daemon.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import psutil

from orchestrator.errors import MORE_FILES, BadInputError, InfrastructureError
from orchestrator.host.bounded import UnansweredError, call_within
from orchestrator.host.confined import DAC_OVERRIDE, SETGID, SETUID, confine_children
from orchestrator.host.domain_xml import RunFiles, domain_name, relocated_xml
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.orphans import adopt_orphans
from orchestrator.host.runtime import Process, end, kill_guests
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.host.ssh import SshTarget, user_target
from orchestrator.interrupts import deferred
from orchestrator.processes import started_ticks

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

_END_SECONDS = 30.0

# An embedded driver that knows nothing of QEMU yet starts it several times, which takes a while where the
# machine is busy; of a host elsewhere the reader has answered by then.
_OPEN_SECONDS, _OPEN_THERE_SECONDS = 300.0, 90.0
# To read a saved memory of many GiB from a slow disk takes minutes.
_START_SECONDS = 1800.0

# What an embedded driver starts as root can have no capability but these. passt needs two to become `nobody`;
# libvirt raises the first for its probes of QEMU (qemuProcessQMPLaunch, src/qemu/qemu_process.c), and
# QEMU needs it where a run's folder is in the home of another user.
_KEPT = (DAC_OVERRIDE, SETGID, SETUID)

# A host elsewhere that is silent for so long has gone (SILENCE_SECONDS of ssh is the same).
_KEEPALIVE_SECONDS, _KEEPALIVES = 10, 6

_EMBEDDED = "qemu:///embed"
# passt takes so many of its socket's path, and drops the rest without a word (conf() in conf.c, by
# UNIX_SOCK_MAX of passt.h): QEMU then waits for a socket that never comes, and the guest has no network.
_PASST_CHARACTERS = 98
# The file is called by the domain: by its id, which counts up in a process, and the beginning of its name
# (virDomainDefGetShortName() of libvirt's domain_conf.c).
_DOMAIN_ID = 99_999
_SHORT_NAME_CHARACTERS = 20
# What libvirt or what it starts says, and what helps. The first are passt's own words (conf.c).
_HINTS: Final = {
    "routable interface": (
        "passt wants a default route, even one that leads nowhere: ip tuntap add orch0 mode tap && "
        "ip addr add 192.0.2.1/24 dev orch0 && ip link set orch0 up && ip route add default dev orch0"
    ),
    os.strerror(errno.EMFILE): MORE_FILES,
}
# passt says so behind each line of its own.
_NO_SYSLOG: Final = re.compile(r"^Failed to send \d+ bytes to syslog\n", re.MULTILINE)

_loop_lock = threading.Lock()
_loop_running = False


def libvirt_module(log: Path | None) -> ModuleType:
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
        *,
        cache: Path,
    ) -> None:
        self.runtime = runtime
        self.cache = cache
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

    def running_names(self) -> list[str]:
        """Names of the domains that run there, sorted."""
        try:
            running = self._connection.listAllDomains(self._libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            return sorted(str(one.name()) for one in running)
        except self._libvirt.libvirtError as error:
            raise InfrastructureError(f"{self.uri} does not answer", details=str(error)) from error

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
            # An interrupt between the start and the name for what was started would leave it unowned.
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
        try:
            thread.start()
        except RuntimeError:  # the machine gives no more threads
            domain.destroy()
        else:
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
        def confined() -> Any:  # libvirt-python has no types
            if self.embedded:  # else a daemon starts it
                confine_children(_KEPT)
            return start()

        try:
            return call_within(_START_SECONDS, confined, unstick=kill_guests)
        except UnansweredError as late:
            raise InfrastructureError(
                f"libvirt did not start the guest in {_START_SECONDS:.0f} s", hint="orchestrator doctor"
            ) from late
        except self._libvirt.libvirtError as error:
            said = _NO_SYSLOG.sub("", str(error))
            hint = next((hint for words, hint in _HINTS.items() if words in said), "orchestrator doctor")
            raise InfrastructureError("libvirt could not start the guest", details=said, hint=hint) from error


@contextmanager
def open_host(uri: str | SshTarget | None, runtime: Path, cache: Path) -> Iterator[LibvirtHost]:
    """Connect: to `uri`, to the libvirt of a machine, or to an embedded driver rooted in the runtime folder.

    `cache` keeps KVM checks, and what libvirt learns of QEMU by starting it several times (4 s); libvirt
    itself checks that it still fits (virQEMUCapsIsValid).
    """
    libvirt = libvirt_module(runtime / "libvirt.log")
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
            adopt_orphans()  # a libvirt daemon has its own
            uri = f"{_EMBEDDED}?root={_embedded_root(runtime / 'v', cache)}"
        try:
            connection = _opened(libvirt, uri, here=shell.is_here)
            stack.callback(connection.close)
            if not shell.is_here:
                connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVES)
        except libvirt.libvirtError as error:
            raise InfrastructureError(
                f"cannot connect to {uri}", details=str(error), hint="orchestrator doctor"
            ) from error
        if uri.startswith(_EMBEDDED):
            _let_passt_in(uri)
        host = LibvirtHost(libvirt, connection, uri, shell, runtime, cache=cache)
        stack.callback(host.wait_for_ends)
        yield host


def _opened(libvirt: ModuleType, uri: str, *, here: bool) -> Any:  # libvirt-python has no types
    """A connection. libvirt itself waits for one without a bound."""

    def connect() -> Any:  # libvirt-python has no types
        if uri.startswith(_EMBEDDED):
            confine_children(_KEPT)
        return libvirt.open(uri)

    seconds = _OPEN_SECONDS if here else _OPEN_THERE_SECONDS
    before = {child.pid for child in psutil.Process().children()}
    try:
        return call_within(seconds, connect)
    except UnansweredError as late:
        # The ssh that libvirt has started stays while the host answers that. Without it the call ends.
        end(
            Process(child.pid, started_ticks(child.pid) or 0, child.name())
            for child in psutil.Process().children()
            if child.pid not in before and not here
        )
        raise InfrastructureError(
            f"libvirt at {uri.partition('?')[0]} did not answer in {seconds:.0f} s",
            hint="orchestrator doctor"
            if here
            else "see whether it runs there: virsh -c qemu:///system version",
        ) from late


def _embedded_root(root: Path, cache: Path) -> Path:
    """A folder for an embedded driver to live in, with our settings of QEMU.

    Raises BadInputError where its path leaves passt no room for that of its socket.
    """
    socket = f"{root}/run/qemu/passt/{_DOMAIN_ID}-{'x' * _SHORT_NAME_CHARACTERS}-net0.socket"
    if (beyond := len(socket) - _PASST_CHARACTERS) > 0:
        raise BadInputError(
            f"the path {root} has {beyond} characters too many: passt would cut off that of its socket",
            hint="set ORCHESTRATOR_RUNTIME to a shorter folder, or to none for /var/tmp",
        )
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(uid=os.getuid(), gid=os.getgid()))
    capabilities = cache / "libvirt"
    capabilities.mkdir(parents=True, exist_ok=True)
    (root / "cache").symlink_to(capabilities)
    return root


def _let_passt_in(uri: str) -> None:
    # Started as root, passt turns itself into `nobody` and then writes its socket and pid file here
    # (passt(1), --runas), so that user must be able to. Like /tmp: one's own files only. libvirt makes the
    # folders above it with what the umask leaves, which may keep that user out.
    for root in map(Path, parse_qs(urlsplit(uri).query).get("root", [])):
        folder = root / "run" / "qemu" / "passt"
        if os.getuid() == 0 and folder.is_dir():
            for way in (root, root / "run", root / "run" / "qemu"):
                way.chmod(0o711)
            folder.chmod(0o1777)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

"""From an image, or a saved state, to a guest that answers on ssh, and back to nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import (
    BootTimeoutError,
    CommandTimeoutError,
    GuestError,
    GuestLostError,
    GuestPanicError,
    InfrastructureError,
)
from orchestrator.guest.build import GUEST_ADDRESS
from orchestrator.guest.causes import Scene, Seen, find_cause
from orchestrator.guest.console import Console, mirrored
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import BootFiles, Image
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.shell import GuestShell
from orchestrator.guest.states import SavedState, hash_files
from orchestrator.host.domain_xml import DomainFiles, RunFiles, domain_xml
from orchestrator.host.kvm_cache import forget_working
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import kept_waiting_seconds
from orchestrator.host.remote import HostLostError
from orchestrator.host.remote_leftovers import noted
from orchestrator.host.shell import HostShell
from orchestrator.records.accel import ICOUNT, KVM

# A saved guest answers within seconds; on a machine that is busy with others it may take longer.
ANSWER_SECONDS = 120.0
# How long what is late may take to be heard of: that QEMU, or the host of a guest, has ended.
LATE_SECONDS = 5.0
_OVERLAY_SECONDS = 60.0
_DOUBT = "it printed nothing: the cached result that KVM works is dropped, and the next run checks again"
# A host of ours is a guest itself, and mostly emulated: what boots in it takes several times as long. So does
# a guest whose instructions are counted, which QEMU checks in each translated block.
_SLOW_PATIENCE = 4
# On a machine that is busy, time for which the guest is kept waiting for a CPU is none that it had; but it is
# not waited for longer than this many times what it has without.
_MOST_PATIENCE = 3


@dataclass(frozen=True)
class Guest:
    """A running guest: its machine, its shell and its console. `host` is its host, if that is one, too."""

    domain: LibvirtDomain
    shell: GuestShell
    console: Console
    keys: SshKeys
    host: Guest | None = None
    seen: Seen = field(default_factory=Seen)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever fails in the block may be but a sign that the guest died: raise that instead.

        A GuestError gets the console's tail.
        """
        try:
            yield
        except GuestError as error:
            silent = isinstance(error, GuestLostError | CommandTimeoutError)
            dead = self.why_lost(error) if silent else self.why_dead(error)
            if dead is None or dead is error:
                raise
            raise dead from error
        except InfrastructureError as error:
            dead = self.why_dead()
            if dead:
                raise dead from error
            raise

    def must_live(self) -> None:
        """Raise what happened to the guest, if it is dead."""
        dead = self.why_dead()
        if dead:
            raise dead

    def why_dead(self, error: GuestError | None = None) -> GuestError | None:
        """The error that tells what happened to the guest, or None while it lives.

        With `error`, what a caller met; it comes back with the console's tail if nothing worse is found.
        """
        lost = self.host.why_dead() if self.host else None
        if lost:
            return _host_lost(lost)
        found = find_cause(self._scene(error))
        if found:
            # What ends a host ends the connection to it at once; of the host itself libvirt hears once the
            # kernel is done with QEMU's memory.
            host = None if isinstance(found, GuestPanicError) else self.host  # that is the guest's own
            late = wait_for(host.why_dead, Deadline(LATE_SECONDS), every=0.2) if host else None
            return _host_lost(late) if late else found
        if error is not None and not error.console_tail:
            error.console_tail = self.console.tail()
        return error

    def why_lost(self, error: GuestError) -> GuestError:
        """What happened to a guest that is lost, with all causes asked, which may take half a minute: `error`
        is what a caller met, and comes back where none finds itself.

        A connection ends at once with what ends it, and libvirt hears of that later.
        """

        def dead() -> GuestError | None:
            found = self.why_dead(error)
            return None if found is error else found

        found = wait_for(dead, Deadline(LATE_SECONDS), every=0.2)
        return found or find_cause(self._scene(error, patient=True)) or error

    def _scene(self, error: GuestError | None, *, patient: bool = False) -> Scene:
        return Scene(self.domain, self.shell, self.console, self.seen, error, patient)


def _host_lost(why: GuestError) -> HostLostError:
    said = f"on the host: {why.brief}: {why.details}" if why.details else f"on the host: {why.brief}"
    return HostLostError("the guest's host is lost", details=said, console_tail=why.console_tail)


@contextmanager
def booted(
    host: LibvirtHost,
    image: Image,
    boot: BootFiles,
    machine: Machine,
    keys: SshKeys,
    *,
    name: str,
    accel: str,
    definition: GuestDefinition,
    scratch: Path,
    progress: Callable[[str], None],
    console_log: Path | None = None,
    disk: Path | None = None,
    kernel_args: str = "",
    keep: bool = False,
) -> Iterator[Guest]:
    """Boot a guest on a fresh overlay and wait until its shell answers; end it afterwards.

    The overlay is `disk`, or one in `scratch`, a folder to be made. `kernel_args` are words that are added to
    the definition's command line of the kernel. With `keep` it goes on running, unless something failed.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(host.shell.folder(scratch, keep=keep))
        log = console_log or scratch / "console.log"
        files = DomainFiles(
            kernel=host.shell.place(boot.kernel, _key(image, boot.kernel)),
            initrd=host.shell.place(boot.initrd, _key(image, boot.initrd)) if boot.initrd else None,
            command_line=f"{definition.command_line} {kernel_args}".rstrip(),
            disk=disk or folder / "disk.qcow2",
            console_log=log if host.shell.is_here else folder / "console.log",
            ssh_port=host.shell.free_port(),
        )
        _overlay(host.shell, host.shell.place(image.disk, _key(image, image.disk)), files.disk)
        console = mirrored(host.shell, files.console_log, log)
        xml = domain_xml(name, machine, files, accel=accel, guest_address=GUEST_ADDRESS)
        target = host.shell.target
        if target and not target.ours and not keep:
            stack.enter_context(noted(host.runtime, target, name, folder))
        with _doubting(host, accel, console):
            domain = stack.enter_context(host.domain(xml, keep=keep))
            progress(f"booting {boot.release}")
            shell = guest_shell(stack, host, files.ssh_port, keys, scratch)
            slow = accel == ICOUNT or (target and target.ours)
            patience = _SLOW_PATIENCE if slow else 1
            guest = answering(Guest(domain, shell, console, keys), patience * definition.boot_timeout)
        yield guest


@contextmanager
def _doubting(host: LibvirtHost, accel: str, console: Console) -> Iterator[None]:
    """A guest that fails in the block under KVM, and printed nothing: that KVM works is believed no more."""
    # Of a state that is made anew there is the console of what could not be restored (`restored`).
    before = console.path.stat().st_size
    try:
        yield
    except InfrastructureError as error:
        # What had been brought of it counts: a host that is lost shows no more.
        silent = console.path.stat().st_size == before
        if accel == KVM and silent and forget_working(host.cache, host.shell):
            error.details = f"{error.details}\n{_DOUBT}".strip()
        raise


@contextmanager
def restored(
    host: LibvirtHost, state: SavedState, keys: SshKeys, *, scratch: Path, console_log: Path
) -> Iterator[Guest]:
    """Let a saved guest go on, on a fresh overlay, and wait until its shell answers; end it afterwards.

    Its console begins with what it had printed until it was saved. Its clock is behind by as long as it
    was away. The host is this machine.
    """
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)  # a second try finds nothing of the first
        scratch.mkdir(mode=0o711, parents=True)
        shutil.copyfile(state.console_log, console_log)
        files = RunFiles(
            disk=_overlay(host.shell, state.disk, scratch / "disk.qcow2", backing="qcow2"),
            console_log=console_log,
            ssh_port=host.shell.free_port(),
        )
        domain = stack.enter_context(host.restored_domain(state.memory, files))
        shell = guest_shell(stack, host, files.ssh_port, keys, scratch)
        yield answering(Guest(domain, shell, Console(console_log), keys), ANSWER_SECONDS)


@contextmanager
def adopted(
    host: LibvirtHost, name: str, keys: SshKeys, *, scratch: Path, console_log: Path
) -> Iterator[Guest]:
    """A guest that is on the host already, suspended: let it go on, and wait until its shell answers.

    It is not ended.
    """
    with ExitStack() as stack:
        scratch.mkdir(mode=0o711, parents=True)
        domain = stack.enter_context(host.running_domain(name))
        domain.resume()
        files = domain.files()
        shell = guest_shell(stack, host, files.ssh_port, keys, scratch)
        console = mirrored(host.shell, files.console_log, console_log)
        yield answering(Guest(domain, shell, console, keys), ANSWER_SECONDS)


def guest_shell(stack: ExitStack, host: LibvirtHost, port: int, keys: SshKeys, scratch: Path) -> GuestShell:
    """A shell in the guest behind a port of the host, closed with `stack`."""
    shell = GuestShell(port, keys, scratch / "known_hosts", host.shell.target)
    stack.callback(shell.close)
    return shell


def answering(guest: Guest, seconds: float) -> Guest:
    """The guest, once its shell answers; `seconds` are those in which it may run. Raises BootTimeoutError."""
    import paramiko

    began, before = time.monotonic(), kept_waiting_seconds(guest.domain.qemu)
    spent, waited = 0.0, 0.0
    last = "nothing listened"
    while spent < min(seconds + waited, _MOST_PATIENCE * seconds):
        dead = guest.why_dead()
        if dead:
            raise dead
        try:
            guest.shell.connect()
        except (OSError, EOFError, paramiko.SSHException) as error:
            # Until sshd listens, passt accepts and closes at once.
            last = str(error) or type(error).__name__
            time.sleep(0.2)
        else:
            return guest
        spent = time.monotonic() - began
        if spent >= seconds + waited:
            waited = kept_waiting_seconds(guest.domain.qemu) - before
    kept = f", for {waited:.0f} s of which it was kept waiting for a CPU" if waited >= 1 else ""
    raise BootTimeoutError(
        f"the guest did not answer on ssh within {spent:.0f} s of its start{kept}",
        details=f"last try: {last}",
        console_tail=guest.console.tail(),
    )


def _key(image: Image, file: Path) -> str:
    """What names the contents of a file: its place in the image, or their hash."""
    if file.is_relative_to(image.folder):
        return f"{image.folder.name}/{file.relative_to(image.folder)}"
    return hash_files([file])


def _overlay(shell: HostShell, base: Path, path: Path, backing: str = "raw") -> Path:
    """A qcow2 file that takes all writes; the base, of format `backing`, is never written."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing, "-b", str(base), str(path)]
    shell.run(argv, seconds=_OVERLAY_SECONDS)
    return path

"""From an image to a guest that answers on ssh, and back to nothing."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deadline import Deadline
from orchestrator.errors import (
    BootTimeoutError,
    GuestError,
    GuestLostError,
    GuestPanicError,
    InfrastructureError,
)
from orchestrator.guest.build import GUEST_ADDRESS
from orchestrator.guest.console import FLOOD_BYTES, Console
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import BootFiles, Image
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.shell import GuestShell
from orchestrator.host.domain_xml import DomainFiles, domain_xml
from orchestrator.host.libvirt_host import LibvirtDomain, LibvirtHost
from orchestrator.host.machine import Machine


@dataclass(frozen=True)
class Guest:
    """A running guest: its machine, its shell and its console."""

    domain: LibvirtDomain
    shell: GuestShell
    console: Console
    keys: SshKeys

    def why_dead(self, error: GuestError | None = None) -> GuestError | None:
        """The error that tells what happened to the guest, or None while it lives.

        With `error`, what a caller met; it comes back with the console's tail if nothing worse is found.
        """
        panic = self.console.panic()
        if panic:
            return GuestPanicError(
                "the guest's kernel panicked", details=panic, console_tail=self.console.tail()
            )
        if self.console.size > FLOOD_BYTES:
            return GuestLostError("the guest floods its console", console_tail=self.console.tail())
        if not self.domain.is_running():
            return GuestLostError("the guest stopped running", console_tail=self.console.tail())
        if error is not None and not error.console_tail:
            error.console_tail = self.console.tail()
        return error


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
    kernel_args: str = "",
) -> Iterator[Guest]:
    """Boot a guest on a fresh overlay and wait until its shell answers; end it afterwards.

    `kernel_args` are words that are added to the definition's command line of the kernel.
    """
    with ExitStack() as stack:
        scratch.mkdir(mode=0o711, parents=True)
        console = Console(console_log or scratch / "console.log")
        files = DomainFiles(
            kernel=boot.kernel,
            initrd=boot.initrd,
            command_line=f"{definition.command_line} {kernel_args}".rstrip(),
            disk=_overlay(image.disk, scratch / "disk.qcow2"),
            console_log=console.path,
            ssh_port=_free_port(),
        )
        xml = domain_xml(name, machine, files, accel=accel, guest_address=GUEST_ADDRESS)
        domain = stack.enter_context(host.domain(xml))
        shell = GuestShell(files.ssh_port, keys, scratch / "known_hosts")
        stack.callback(shell.close)
        guest = Guest(domain, shell, console, keys)
        progress(f"booting {boot.release}")
        _wait_for_shell(guest, definition.boot_within)
        yield guest


def _wait_for_shell(guest: Guest, seconds: float) -> None:
    import paramiko

    deadline = Deadline(seconds)
    last = "nothing listened"
    while not deadline.expired:
        dead = guest.why_dead()
        if dead:
            raise dead
        try:
            guest.shell.connect()
        except (OSError, EOFError, paramiko.SSHException) as error:
            # Until sshd listens, passt accepts and closes at once.
            last = str(error) or type(error).__name__
            time.sleep(0.5)
        else:
            return
    raise BootTimeoutError(
        f"the guest did not answer on ssh within {seconds:.0f} s of its start",
        details=f"last try: {last}",
        console_tail=guest.console.tail(),
    )


def _overlay(base: Path, path: Path) -> Path:
    """A qcow2 file that takes all writes; the base is never written."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InfrastructureError("qemu-img could not make a disk overlay", details=done.stderr)
    return path


def _free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

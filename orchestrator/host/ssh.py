"""How another machine is reached: OpenSSH's client, with one set of options for all that goes there.

A script holds the options, because libvirt, ansible and paramiko each start the client themselves, and a
libvirt URI can name a program but no options for it (https://libvirt.org/uri.html#ssh-transport).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import BadInputError

CONNECT_SECONDS = 20
# A host that answers nothing for this long is lost; under software emulation a busy one takes seconds.
SILENCE_SECONDS = 60

# A host is known or it is refused, and nothing is asked: who would answer?
_ALWAYS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ServerAliveInterval=10",
    f"ServerAliveCountMax={SILENCE_SECONDS // 10}",
    "LogLevel=ERROR",
)


@dataclass(frozen=True)
class SshTarget:
    """A machine that ssh reaches. `script` is the client with our options.

    `ours`: it ends with the run that made it, and what is in it needs no cleaning up.
    """

    script: Path
    address: str
    port: int | None
    user: str | None
    ours: bool = False

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.user}@{self.address}" if self.user else self.address

    def argv(self, *command: str, forward: str = "") -> list[str]:
        """Run a command there, or, with `forward`, let standard input and output be a connection to that
        address of its (ssh(1), -W)."""
        port = ["-p", str(self.port)] if self.port else []
        way = ["-W", forward] if forward else []
        return [str(self.script), "-T", *port, *way, self.name, *([shlex.join(command)] if command else [])]

    @property
    def by_hand(self) -> str:
        """What a person types to see whether it answers."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{self.name} python3 --version"

    def libvirt_uri(self, path: str = "/system") -> str:
        """The URI of its libvirt."""
        port = f":{self.port}" if self.port else ""
        return f"qemu+ssh://{self.name}{port}{path}?command={self.script}&no_tty=1"


def user_target(uri: str, folder: Path) -> SshTarget:
    """The machine of a `qemu+ssh://` URI of the user, reached with their own keys and configuration.

    Their ~/.ssh/known_hosts has to know it. Raises BadInputError.
    """
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError as error:
        raise BadInputError(f"{uri}: {error}", hint="write it as qemu+ssh://root@host:22/system") from None
    if not parts.hostname or parts.query or parts.password:
        raise BadInputError(
            f"{uri} is not of the form qemu+ssh://user@host/system",
            hint="ports, keys and jump hosts belong into ~/.ssh/config",
        )
    return SshTarget(_script(folder, _ALWAYS), parts.hostname, port, parts.username)


def own_target(port: int, key: Path, known_hosts: Path, folder: Path) -> SshTarget:
    """A machine of our own making, behind a port of 127.0.0.1; nothing of the user's has a say."""
    options = (
        *_ALWAYS,
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        f"UserKnownHostsFile={known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
    )
    return SshTarget(_script(folder, options, "-F", "/dev/null", "-i", str(key)), "127.0.0.1", port, "root")


def _script(folder: Path, options: tuple[str, ...], *words: str) -> Path:
    argv = ["ssh", *words, *(word for option in options for word in ("-o", option))]
    path = folder / "ssh"
    # In a session of its own: a Ctrl-C at our terminal is not for it, since we still need it to clean up.
    path.write_text(f'#!/bin/sh\nexec setsid {shlex.join(argv)} "$@"\n')
    path.chmod(0o700)
    return path

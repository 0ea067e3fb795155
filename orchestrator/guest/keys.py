"""SSH keys of our own making: one client key and one host key for all guests of a cache.

The user's keys, agent and known_hosts are never read. The host key is baked into the images, so
the first connection already knows whom it talks to.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.guest.cache import locked


@dataclass(frozen=True)
class SshKeys:
    """Paths of the private keys (mode 0600), each with its `.pub` beside it."""

    client: Path
    host: Path

    @property
    def client_public(self) -> str:
        """The `ssh-ed25519 AAAA...` line that guests authorise."""
        return self.client.with_suffix(".pub").read_text().strip()

    @property
    def host_public(self) -> str:
        """Type and base64 of the key that every guest of this cache proves itself with."""
        return " ".join(self.host.with_suffix(".pub").read_text().split()[:2])

    def known_hosts_line(self, port: int) -> str:
        """An OpenSSH known_hosts line for a guest forwarded to a port of 127.0.0.1."""
        return f"[127.0.0.1]:{port} {self.host_public}\n"


def ensure_keys(cache_dir: Path) -> SshKeys:
    """Make the keys where they are missing. Safe against another process doing the same."""
    folder = cache_dir / "ssh"
    with locked(folder, mode=0o700):
        folder.chmod(0o700)  # one that was there may have come by another way
        return SshKeys(client=_ensure_key(folder / "client"), host=_ensure_key(folder / "host"))


def _ensure_key(path: Path) -> Path:
    public = path.with_suffix(".pub")
    if not (path.exists() and public.exists()):
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / "key"
            subprocess.run(  # ssh-keygen makes the private key 0600
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "orchestrator guest", "-f", str(made)],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            # Private key last: whoever sees it also sees its public half.
            made.with_suffix(".pub").replace(public)
            made.replace(path)
    path.chmod(0o600)
    return path

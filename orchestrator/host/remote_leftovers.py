"""What a run keeps on a host elsewhere, noted in its runtime folder: after a kill -9, `clean` ends it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import GuestLostError, InfrastructureError
from orchestrator.host.ssh import SshTarget

_PREFIX = "elsewhere-"
_SECONDS = 60.0


@dataclass(frozen=True)
class RemoteGuest:
    """A guest on another host: its domain, and the folder with its files."""

    script: str
    address: str
    port: int | None
    user: str | None
    domain: str
    folder: str

    @property
    def target(self) -> SshTarget:
        """The host."""
        return SshTarget(Path(self.script), self.address, self.port, self.user)


@contextmanager
def noted(runtime: Path, target: SshTarget, domain: str, folder: Path) -> Iterator[None]:
    """Keep a note of a guest there for as long as the block lasts.

    If the guest is lost within it, the connection may be what is broken: the guest is ended by a new one, or
    the error says what may still be there.
    """
    note = runtime / f"{_PREFIX}{domain}.json"
    what = RemoteGuest(str(target.script), target.address, target.port, target.user, domain, str(folder))
    note.write_text(json.dumps(asdict(what)))
    try:
        yield
    except GuestLostError as error:
        try:
            end_remote(what)
        except InfrastructureError as left:
            error.details = f"{error.details}\n{left.brief}; {left.hint}".strip()
        raise
    finally:
        note.unlink(missing_ok=True)


def remote_leftovers(runtime: Path) -> list[RemoteGuest]:
    """What a runtime folder has notes of."""
    found = []
    for note in sorted(runtime.glob(f"{_PREFIX}*.json")):
        try:
            found.append(RemoteGuest(**json.loads(note.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return found


def end_remote(left: RemoteGuest) -> None:
    """End the guest there, and remove its folder. Raises InfrastructureError."""
    if not left.folder.startswith("/var/tmp/orchestrator-guest-") or ".." in left.folder:  # noqa: S108  # not ours
        raise InfrastructureError(f"{left.folder} on {left.target.name} belongs to another program")
    virsh = ["virsh", "-q", "-c", "qemu:///system", "destroy", left.domain]
    _run(left, virsh, check=False)  # it may have ended by itself
    _run(left, ["rm", "-rf", "--one-file-system", left.folder], check=True)


def _run(left: RemoteGuest, command: list[str], *, check: bool) -> None:
    argv, said = left.target.argv(*command), ""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        said = done.stderr.strip()[-1000:] or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if check and said:
        raise InfrastructureError(
            f"{left.target.name} may still have the guest {left.domain}",
            details=said,
            hint=f"there: virsh destroy {left.domain}; rm -rf {left.folder}",
        )

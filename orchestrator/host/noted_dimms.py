"""A DIMM that a VM has for a moment, noted in the runtime folder: after a kill -9, `clean` has it removed.

Its alias is ours and made by lot, so that it is never another one's DIMM that is removed.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.domain import Domain
from orchestrator.host.domain_memory import read_domain
from orchestrator.host.notes import HostNote
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.interrupts import deferred

_PREFIX = "dimm-"
ALIAS = re.compile(r"ua-orchestrator-[0-9a-f]{8}")
_UUID = re.compile(r"[0-9a-f-]{36}")
_URI = re.compile(r"qemu:///[a-z]+")
_SECONDS = 60.0
_EJECT_SECONDS = 20.0


@dataclass(frozen=True)
class DimmNote(HostNote):
    """A DIMM of a VM; `connect` is the libvirt as its host calls it."""

    alias: str
    vm: str
    uuid: str
    connect: str

    @property
    def by_hand(self) -> str:
        """What a person types there to have it removed."""
        return f"virsh -c {self.connect} detach-device-alias {self.uuid} {self.alias} --live"

    @property
    def left(self) -> InfrastructureError:
        """That it is there still."""
        return InfrastructureError(
            f"{self.vm} of {self.host} has the DIMM {self.alias} still: its guest has not ejected it",
            hint=f"there, again: {self.by_hand}",
        )


@contextmanager
def noted_dimm(domain: Domain, shell: HostShell, runtime: Path) -> Iterator[DimmNote]:
    """Keep a note of a DIMM for as long as the block lasts, which plugs it and has it removed.

    If the block fails, the connection may be what is broken: a new one has it removed, or the error says that
    it is there still. A block that ends has seen what became of it.
    """
    memory, alias = domain.memory(), f"ua-orchestrator-{secrets.token_hex(4)}"
    what = DimmNote(alias, memory.name, memory.uuid, domain.libvirt_uri).on(shell)
    note = runtime / f"{_PREFIX}{what.alias}.json"
    note.write_text(json.dumps(asdict(what)))
    try:
        yield what
    except BaseException as error:
        with deferred():
            left = _still_plugged(what)
        if left and isinstance(error, OrchestratorError):
            error.details = f"{error.details}\n{left.brief}; {left.hint}".strip()
        elif left:
            raise left from error
        raise
    finally:
        note.unlink(missing_ok=True)


def _still_plugged(what: DimmNote) -> InfrastructureError | None:
    """Why a DIMM is not gone; None once it is."""
    try:
        unplug(what)
    except InfrastructureError as error:
        return error
    return None


def left_dimms(runtime: Path) -> list[DimmNote]:
    """What a runtime folder has notes of; of no DIMM but ours."""
    found = []
    for note in sorted(runtime.glob(f"{_PREFIX}*.json")):
        try:
            read = DimmNote(**json.loads(note.read_text()))
            ours = [
                pattern.fullmatch(text)
                for pattern, text in ((ALIAS, read.alias), (_UUID, read.uuid), (_URI, read.connect))
            ]
        except (OSError, ValueError, TypeError):
            continue  # it was being written: nothing was plugged yet
        if all(ours):
            found.append(read)
    return found


def unplug(note: DimmNote) -> bool:
    """Have it removed; False where it, or its VM, is gone already. Raises InfrastructureError."""
    virsh = ["virsh", "-q", "-c", note.connect]
    try:
        with ExitStack() as stack:
            shell = stack.enter_context(remote_shell(note.target)) if note.target else HostShell()

            def gone() -> bool:
                memory = read_domain(shell.run([*virsh, "dumpxml", note.uuid], seconds=_SECONDS, check=False))
                return memory is None or note.alias not in memory.dimm_aliases

            if gone():
                return False
            shell.run([*virsh, "detach-device-alias", note.uuid, note.alias, "--live"], seconds=_SECONDS)
            if wait_for(lambda: gone() or None, Deadline(_EJECT_SECONDS), every=0.5) is None:
                raise note.left
    except OSError as error:
        raise InfrastructureError(
            f"the DIMM {note.alias} of {note.vm} of {note.host} could not be removed",
            details=str(error),
            hint=f"there: {note.by_hand}",
        ) from error
    return True

"""Settings of a host that are changed for a while, noted in the runtime folder: after a kill -9, `clean` puts
them back.

A host of ours that ends with the run (a nested one) needs no note. Of any other, the note is there before the
setting is changed, and goes once it is back.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.notes import HostNote
from orchestrator.host.shell import HostShell, remote_shell
from orchestrator.interrupts import deferred

THP, NX_HUGE_PAGES = "transparent_hugepage", "nx_huge_pages"
# Nothing else is ever written, whatever a note says.
PATHS: Final = {
    THP: "/sys/kernel/mm/transparent_hugepage/enabled",
    NX_HUGE_PAGES: "/sys/module/kvm/parameters/nx_huge_pages",
}
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PREFIX = "setting-"
# kvm_mmu_zap_all_fast() of every VM is done within the write; of many large ones that takes its time.
WRITE_SECONDS = 600.0


def chosen(text: str) -> str:
    """What a setting's file says that is set: `madvise` of "always [madvise] never", else all of it."""
    found = re.search(r"\[([\w+-]+)\]", text)
    return found[1] if found else text.strip()


@dataclass(frozen=True)
class SettingNote(HostNote):
    """A setting as it was and as it was changed, on which boot of the host."""

    setting: str
    former: str
    changed_to: str
    boot_id: str

    @classmethod
    def of(cls, shell: HostShell, setting: str, former: str, changed_to: str) -> Self:
        """On a host as it is now."""
        boot_id = shell.texts(_BOOT_ID).get(_BOOT_ID, "").strip()
        return cls(setting, former, changed_to, boot_id).on(shell)


@contextmanager
def noted_setting(
    shell: HostShell, runtime: Path, setting: str, *, former: str, changed_to: str
) -> Iterator[None]:
    """Keep a note of what a setting was for as long as the block lasts, which changes it and puts it back.

    If it is not back then, the connection may be what is broken: it is put back by a new one, or the error
    says what is still set. Both values as `chosen` reads them.
    """
    if shell.target is not None and shell.target.ours:
        yield
        return
    what = SettingNote.of(shell, setting, former, changed_to)
    note = runtime / f"{_PREFIX}{setting}-{secrets.token_hex(4)}.json"
    note.write_text(json.dumps(asdict(what)))
    failed: OrchestratorError | None = None
    try:
        yield
    except OrchestratorError as error:
        failed = error
        raise
    finally:
        with deferred():
            left = _still_set(shell, what)
            note.unlink(missing_ok=True)
            if left and failed:
                failed.details = f"{failed.details}\n{left.brief}; {left.hint}".strip()
            elif left:
                raise left


def _still_set(shell: HostShell, what: SettingNote) -> InfrastructureError | None:
    """Why a setting is not as it was; None once it is."""
    if what.changed_to == what.former:
        return None
    with suppress(InfrastructureError, OSError):  # a host that is lost
        if chosen(shell.text(PATHS[what.setting])) != what.changed_to:
            return None
    try:
        put_back(what)
    except InfrastructureError as error:
        return error
    return None


@contextmanager
def changed_setting(shell: HostShell, runtime: Path, setting: str, value: str) -> Iterator[None]:
    """A setting of a host has another value for the time of the block. Raises OSError where it cannot."""
    path = PATHS[setting]
    with ExitStack() as stack:
        with deferred():  # what was set is put back
            former = chosen(shell.text(path))
            stack.enter_context(noted_setting(shell, runtime, setting, former=former, changed_to=value))
            shell.write(path, value)
            stack.callback(_restore, shell, path, former)
        yield


def _restore(shell: HostShell, path: str, former: str) -> None:
    with deferred(), suppress(OSError, InfrastructureError):  # a host that is lost
        shell.write(path, former)


def left_settings(runtime: Path) -> list[SettingNote]:
    """What a runtime folder has notes of."""
    found = []
    for note in sorted(runtime.glob(f"{_PREFIX}*.json")):
        try:
            read = SettingNote(**json.loads(note.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # it was being written: nothing was changed yet
        if read.setting in PATHS:
            found.append(read)
    return found


def put_back(note: SettingNote) -> bool:
    """Set what was set before; False where that is not due: after a reboot, and where it is set already or
    somebody else has changed it since. Raises InfrastructureError."""
    path = PATHS[note.setting]
    try:
        with ExitStack() as stack:
            shell = stack.enter_context(remote_shell(note.target)) if note.target else HostShell()
            texts = shell.texts(_BOOT_ID, path)
            same_boot = texts.get(_BOOT_ID, "").strip() == note.boot_id
            if not same_boot or chosen(texts.get(path, "")) != note.changed_to:
                return False
            shell.write(path, note.former)
    except (OSError, InfrastructureError) as error:
        raise InfrastructureError(
            f"{note.setting} of {note.host} could not be put back to {note.former}",
            details=error.details if isinstance(error, InfrastructureError) else str(error),
            hint=f"there, as root: echo {note.former} > {path}",
        ) from error
    return True

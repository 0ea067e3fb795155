"""What a trial sets on its host, and puts back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.errors import InfrastructureError
from orchestrator.host.machine import HostSetup
from orchestrator.host.shell import HostShell
from orchestrator.interrupts import deferred

THP = "/sys/kernel/mm/transparent_hugepage/enabled"


@contextmanager
def apply_host_settings(shell: HostShell, settings: HostSetup) -> Iterator[None]:
    """Set it for the time of the block. Raises InfrastructureError where the host does not let us."""
    if settings.thp == "host":
        yield
        return
    before = ""
    try:
        with deferred():  # what was set is put back
            before = _choose(shell, settings.thp)
        yield
    finally:
        with deferred(), suppress(OSError, InfrastructureError):  # a host that is lost
            if before:
                shell.write(THP, before)


def _choose(shell: HostShell, word: str) -> str:
    """Set it; the word that was chosen before."""
    try:
        chosen = re.search(r"\[(\w+)\]", shell.text(THP))  # "always [madvise] never"
        shell.write(THP, word)
    except OSError as error:
        raise InfrastructureError(
            f"cannot set transparent huge pages of {shell.name} to {word}",
            details=str(error),
            hint="be root there, or leave `host_setup.thp` out",
        ) from error
    return chosen[1] if chosen else ""

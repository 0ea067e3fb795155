"""What a trial sets on its host, and puts back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.host.machine import HostSetup
from orchestrator.host.settings import THP, changed_setting
from orchestrator.host.shell import HostShell


@contextmanager
def apply_host_settings(shell: HostShell, settings: HostSetup, runtime: Path) -> Iterator[None]:
    """Set it for the time of the block. Raises InfrastructureError where the host does not let us."""
    with ExitStack() as stack:
        if settings.thp != "host":
            try:
                stack.enter_context(changed_setting(shell, runtime, THP, settings.thp))
            except OSError as error:
                raise InfrastructureError(
                    f"cannot set transparent huge pages of {shell.name} to {settings.thp}",
                    details=str(error),
                    hint="be root there, or leave `host_setup.thp` out",
                ) from error
        yield

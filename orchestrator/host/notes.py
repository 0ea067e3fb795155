"""Notes in a runtime folder of what was changed on a host: after a kill -9, `clean` puts it right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.host.shell import HostShell
from orchestrator.host.ssh import SshTarget


@dataclass(frozen=True, kw_only=True)
class HostNote:
    """Where it was changed: fields are those of `SshTarget`; `address` is empty for this machine."""

    script: str = ""
    address: str = ""
    port: int | None = None
    user: str | None = None

    def on(self, shell: HostShell) -> Self:
        """The same note, of the host of this shell."""
        one = shell.target
        if one is None:
            return self
        return replace(self, script=str(one.script), address=one.address, port=one.port, user=one.user)

    @property
    def target(self) -> SshTarget | None:
        """The host; None for this machine."""
        return SshTarget(Path(self.script), self.address, self.port, self.user) if self.address else None

    @property
    def host(self) -> str:
        """For people."""
        return self.target.name if self.target else "this machine"

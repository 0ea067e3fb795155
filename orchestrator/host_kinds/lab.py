"""The KVM host that `orchestrator lab up` started on this machine, reached as any other host is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.host_kinds.base import HOST_KINDS
from orchestrator.host_kinds.libvirt import Libvirt

if TYPE_CHECKING:
    from orchestrator.host.ssh import SshTarget


@HOST_KINDS.register("lab")
class Lab(Libvirt):
    """The lab that is up."""

    pattern = form = "lab"

    @classmethod
    def parse(cls, text: str) -> Lab | None:
        return cls(text) if text == cls.form else None

    @property
    def elsewhere(self) -> bool:
        return True

    def address(self, runtime: Path) -> SshTarget:
        from orchestrator.host.lab import running_lab

        return running_lab().target(runtime)

"""A whole machine: its VMs, then its processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from orchestrator.audit.reading import Audit, VmReading
from orchestrator.deadline import Deadline
from orchestrator.host.shell import HostShell

FindVms: TypeAlias = Callable[[HostShell, str | None, Deadline], Sequence[VmReading]]
"""The VMs of a machine: its shell, the libvirt URI that --connect named or None, and until when."""


def audit(
    shell: HostShell,
    *,
    connection: str | None = None,
    deadline: Deadline,
    find_vms: FindVms = lambda _shell, _connection, _deadline: (),
) -> Audit:
    """Read it. Raises HostLostError."""
    raise NotImplementedError

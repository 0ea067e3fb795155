"""The page tables of one process."""

from __future__ import annotations

from orchestrator.audit.reading import Gap, ProcessReading
from orchestrator.deadline import Deadline
from orchestrator.host.shell import HostShell


def read_process(shell: HostShell, pid: int, deadline: Deadline) -> ProcessReading | Gap:
    """Read it. A process that ends, changes or is another user's is a gap; HostLostError passes."""
    raise NotImplementedError

"""A lab that runs: a nested host that a process of its own keeps (`orchestrator lab up`).

<runtime>/<token>/lab.json says where it is. The process is the owner of that runtime folder, so a lab whose
process was killed is a leftover like any other.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host.runtime import must_be_ours, runtime_base
from orchestrator.host.ssh import SshTarget, own_target
from orchestrator.processes import is_alive, send_signal

LAB_FILE = "lab.json"


@dataclass(frozen=True)
class RunningLab:
    """A lab that runs: the process that keeps it, and how ssh reaches it."""

    pid: int
    started_ticks: int
    boot_id: str
    port: int
    key: str
    known_hosts: str
    folder: str
    accel: str
    facts: dict[str, object]

    def target(self, folder: Path) -> SshTarget:
        """How to reach it; `folder` takes a script."""
        return own_target(self.port, Path(self.key), Path(self.known_hosts), folder)

    @property
    def uri(self) -> str:
        """Of its libvirt, for virsh and others."""
        return self.target(Path(self.folder)).libvirt_uri()


def find_lab() -> RunningLab | None:
    """The lab of this user that runs, if there is one."""
    base = runtime_base()
    if not base.is_dir():
        return None
    must_be_ours(base)  # else anybody could name the process that we shall end and the host that we shall use
    for path in sorted(base.glob(f"*/{LAB_FILE}")):
        try:
            lab = RunningLab(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if is_alive(lab.pid, lab.started_ticks, lab.boot_id):
            return lab
    return None


def running_lab() -> RunningLab:
    """The lab that runs. Raises BadInputError when there is none."""
    lab = find_lab()
    if lab is None:
        raise BadInputError("no lab is up", hint="orchestrator lab up")
    return lab


def end_lab(lab: RunningLab, seconds: float = 60.0) -> None:
    """End a lab, by a signal to the process that keeps it. Raises InfrastructureError."""
    send_signal(lab.pid, lab.started_ticks, signal.SIGTERM)
    ended = wait_for(
        lambda: None if is_alive(lab.pid, lab.started_ticks, lab.boot_id) else True,
        Deadline(seconds),
        every=0.1,
    )
    if not ended:
        raise InfrastructureError(
            f"the lab's process {lab.pid} does not end", hint=f"kill -9 {lab.pid} && orchestrator clean"
        )

"""A lever on a VM of a live host: what is predicted, which VMs it touches, what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.audit.reading import Amount
from orchestrator.audit.vm_process import VmProcess, VmProcesses, find_processes
from orchestrator.audit.vm_ram import parse_mappings, ram_mappings
from orchestrator.audit.vm_tables import held as held_by
from orchestrator.audit.vm_tables import read_host
from orchestrator.deadline import Deadline
from orchestrator.errors import InfrastructureError
from orchestrator.host.domain import QemuProcess
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.host.qemu_process import Segment
from orchestrator.host.shell import HostShell
from orchestrator.levers import Lever, LeverTarget, Prediction, Pulled, Scope
from orchestrator.levers.base import Held
from orchestrator.units import GIB, PMD_BYTES

_LOOK_SECONDS = 30.0
_SLICE_SECONDS = 0.5


@dataclass(frozen=True)
class MomentHeld:
    """What is held at one instant: measured. `own` are the VM's second-level tables, by its cgroup; `host`
    has the rest."""

    own: Amount
    host: Held


@dataclass(frozen=True)
class LiveVm:
    """A VM of a live host. `among` are all VMs of it, whoever started them."""

    name: str
    target: LeverTarget
    process: VmProcess
    among: VmProcesses

    @classmethod
    def find(cls, domain: LibvirtDomain, shell: HostShell, runtime: Path) -> LiveVm:
        """A domain of libvirt's. Raises InfrastructureError where its process or its RAM is not known."""
        memory = domain.memory()
        among = find_processes(shell, _LOOK_SECONDS)
        process = next((one for one in among.found if one.command.uuid.lower() == memory.uuid), None)
        if process is None:
            raise InfrastructureError(f"the process of {memory.name} is not to be seen on {shell.name}")
        blocks = (*process.command.initial, *memory.dimms, *(one.maximum for one in memory.virtio_mem))
        mappings = ram_mappings(parse_mappings(shell.large_mappings(process.pid, PMD_BYTES)), blocks)
        if not blocks or mappings is None:
            raise InfrastructureError(
                f"which mappings of process {process.pid} are the RAM of {memory.name}?"
            )
        segments, base = [], 0
        for one in mappings:
            # As orchestrator.audit.vm_ram: where the guest has a block, within a GiB, is not asked.
            segments.append(Segment(base, one.start, one.size))
            base += -(-one.size // GIB) * GIB
        qemu = QemuProcess(process.pid, shell)
        return cls(memory.name, LeverTarget(domain, qemu, tuple(segments), runtime), process, among)

    def touched(self, lever: Lever) -> tuple[VmProcess, ...]:
        """VMs whose tables the lever acts on."""
        if lever.scope is Scope.VM:
            return (self.process,)
        return tuple(one for one in self.among.found if one.kvm)

    def measure(self) -> MomentHeld:
        """What is held now. Raises OSError when the VM has ended."""
        host = read_host(self.target.shell, self.among.found)
        return MomentHeld(held_by(self.process, self.among, host), self.target.held())

    def predict(self, lever: Lever, now: MomentHeld) -> Prediction:
        """What the lever would leave of what is held now."""
        return lever.predict(self.target, now.own.value)


@dataclass
class Pull:
    """A lever, pulled on a VM once.

    `pulled` is how it went, and `moments` are what was measured, `before`, `at_once` and `after`: what there
    is of both is right also where the VM, or its host, is lost meanwhile.
    """

    vm: LiveVm
    lever: Lever
    moments: dict[str, MomentHeld] = field(default_factory=dict)
    pulled: Pulled | None = None

    def run(self, settle_seconds: float, sleep: Callable[[float], object] = time.sleep) -> Pulled:
        """Pull it and measure before, at once, and `settle_seconds` later. Raises OSError when the VM has
        ended, and InfrastructureError."""
        self.moments["before"] = self.vm.measure()
        self.pulled = self.lever.pull(self.vm.target)
        self.moments["at_once"] = self.vm.measure()
        deadline = Deadline(settle_seconds)
        while not deadline.expired:
            sleep(min(_SLICE_SECONDS, deadline.remaining))
        self.moments["after"] = self.vm.measure()
        return self.pulled

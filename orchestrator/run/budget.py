"""How many trials a host can run at once."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from orchestrator.host.machine import Machine
from orchestrator.host.shell import HostShell
from orchestrator.host_kinds import is_guest
from orchestrator.plan import TrialSpec
from orchestrator.procfs import kib_lines, processors
from orchestrator.scenario.checks import guest_overhead_bytes


@dataclass
class Budget:
    """Memory and cores that are left. One trial may always run, whatever it takes."""

    memory_bytes: int
    cores: int
    running: int = 0

    @classmethod
    def of(cls, shell: HostShell) -> Budget:
        """What a host has to give now."""
        if shell.is_here:
            return cls(psutil.virtual_memory().available, len(os.sched_getaffinity(0)))
        memory = kib_lines(shell.text("/proc/meminfo"))
        return cls(memory.get("MemAvailable", 0), processors(shell.text("/proc/cpuinfo")))

    def take(self, plan: TrialSpec, cores: int | None = None) -> bool:
        """Take what a trial needs, if it is there: `cores`, by default one for each vCPU."""
        machine = machine_here(plan)
        cores = machine.vcpus if cores is None else cores
        if self.running and (memory_of(machine) > self.memory_bytes or cores > self.cores):
            return False
        self.memory_bytes -= memory_of(machine)
        self.cores -= cores
        self.running += 1
        return True

    def give_back(self, plan: TrialSpec, cores: int | None = None) -> None:
        """What `take` took."""
        machine = machine_here(plan)
        self.memory_bytes += memory_of(machine)
        self.cores += machine.vcpus if cores is None else cores
        self.running -= 1


def machine_here(plan: TrialSpec) -> Machine:
    """What takes this machine's memory: the guest, or the host that it runs in."""
    return plan.host_machine if is_guest(plan.host) else plan.machine


def memory_of(machine: Machine) -> int:
    """Bytes of a host's memory that it takes at most, QEMU's own included."""
    return machine.maximum_memory + guest_overhead_bytes(machine)

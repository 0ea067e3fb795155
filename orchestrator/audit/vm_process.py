"""A process that runs a VM, as its host tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator.host.shell import HostShell
from orchestrator.host.vmm import VmCommand, read_command
from orchestrator.printable import clean

_MOST_VMS = 10_000


@dataclass(frozen=True)
class VmProcess:
    """A process that runs a VM. `may_read`: its descriptors, and so what it holds open."""

    pid: int
    ticks: int
    comm: str
    user: int
    may_read: bool
    kvm: tuple[int, ...]
    """Descriptors that are VMs of KVM's."""
    vcpus: int
    vfio: bool
    threads: frozenset[int]
    cgroup: str
    """/proc/PID/task/TID/cgroup of a vCPU thread."""
    argv: tuple[str, ...]

    @cached_property
    def command(self) -> VmCommand:
        """What its command line says."""
        return read_command(self.argv, self.user)

    @property
    def accelerator(self) -> str:
        """kvm, tcg, another one that its command line names, or unknown."""
        if self.kvm:
            return "kvm"
        told = [one for one in self.command.accelerators if self.may_read is False or one != "kvm"]
        if self.may_read and not told and self.command.vmm == "qemu":
            return "tcg"  # QEMU's default, and what it falls back to
        return clean(told[0]) if len(told) == 1 else "unknown"


@dataclass(frozen=True)
class VmProcesses:
    """Those of a host."""

    found: tuple[VmProcess, ...]
    unread: tuple[tuple[int, str], ...]
    """Processes, and their cgroups, that may hold a VM as well, which we may not see."""
    cut: bool
    """Not all processes were looked at: there was no time."""


def find_processes(shell: HostShell, seconds: float) -> VmProcesses:
    """Look for them. A QEMU that has no machine, as libvirt starts one to ask what it can do, is none."""
    told = shell.vms(seconds)
    found = (_process(one) for one in told["vms"][:_MOST_VMS])
    return VmProcesses(
        tuple(sorted((one for one in found if not one.command.empty), key=lambda one: one.pid)),
        tuple((int(pid), str(cgroup)) for pid, cgroup in told["unread"]),
        bool(told["cut"]),
    )


def _process(one: Mapping[str, Any]) -> VmProcess:
    def numbers(name: str) -> Sequence[int]:
        return [int(number) for number in one[name]]

    return VmProcess(
        int(one["pid"]),
        int(one["ticks"]),
        clean(one["comm"]),
        int(one["user"]),
        bool(one["may_read"]),
        tuple(numbers("kvm")),
        int(one["vcpus"]),
        bool(one["vfio"]),
        frozenset(numbers("threads")),
        str(one["cgroup"]),
        tuple(map(str, one["argv"])),
    )

"""The shape of a lever: on what it acts, what it costs, how it is undone, when it refuses, what it frees."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from orchestrator.host.collapse import Identity
from orchestrator.host.domain import Domain, QemuProcess
from orchestrator.host.machine import Frozen
from orchestrator.host.shell import HostShell
from orchestrator.procfs import MEMINFO, VMSTAT, kib_lines, second_level_bytes
from orchestrator.records.step import StepOutcome
from orchestrator.registry import Registry

if TYPE_CHECKING:  # numpy, which a check of a scenario does without
    from orchestrator.host.qemu_process import Segment
    from orchestrator.levers.memory import GuestMemory


class Scope(StrEnum):
    """Whose tables a lever acts on."""

    HOST = "all VMs of the host"
    VM = "one VM"


@dataclass(frozen=True)
class Held:
    """What is held at one instant: measured, in bytes.

    `second_level` is of all VMs of the host, None where its kernel does not count; `resident` and
    `page_tables` are VmRSS and VmPTE of the VM's QEMU. `faults` are those that KVM has handled for the VM so
    far (`pf_taken`, kvm_vcpu_stats_desc in arch/x86/kvm/x86.c), None where its debugfs is not to be read.
    """

    second_level: int | None
    resident: int
    page_tables: int
    faults: int | None


@dataclass(frozen=True)
class LeverTarget:
    """A VM, its QEMU, and its host. `segments` are where its RAM lies in QEMU, `runtime` is the folder in
    which what `clean` has to put right is noted, `wait` sleeps."""

    domain: Domain
    qemu: QemuProcess
    segments: tuple[Segment, ...]
    runtime: Path
    wait: Callable[[float], object] = time.sleep

    @property
    def shell(self) -> HostShell:
        """The host."""
        return self.qemu.shell

    @cached_property
    def identity(self) -> Identity:
        """Whose QEMU's process is, when it is first asked. Raises OSError."""
        return self.shell.identity(self.qemu.pid)

    def held(self) -> Held:
        """What is held now. Raises OSError where the VM is gone."""
        from orchestrator.host.qemu_process import status_bytes

        files = self.shell.texts(MEMINFO, VMSTAT, f"/sys/kernel/debug/kvm/{self.qemu.pid}-*/pf_taken")
        own = status_bytes(self.qemu)
        counted = second_level_bytes(kib_lines(files.get(MEMINFO, "")), files.get(VMSTAT, ""))
        faults = [int(text) for path, text in files.items() if path.endswith("pf_taken")]
        return Held(counted, own.get("VmRSS", 0), own.get("VmPTE", 0), sum(faults) if faults else None)

    @cached_property
    def memory(self) -> GuestMemory:
        """What QEMU has of the VM's memory, when it is first asked. Raises OSError."""
        from orchestrator.levers.memory import GuestMemory

        return GuestMemory.read(self.qemu, self.segments)


@dataclass(frozen=True)
class Prediction:
    """What a lever would leave of a VM's second-level tables, in bytes: predicted from what was measured.

    `tables_at_most` are there when the VM has touched all that its host has of it, as faults make anew what
    is used. None where that follows from what it holds, and this is not known. `takes_at_most` is memory that
    its process gains, in `ranges` of 2 MiB.
    """

    tables_at_least: int | None
    tables_at_most: int | None
    takes_at_most: int = 0
    ranges: int = 0


@dataclass(frozen=True)
class Pulled:
    """How it went. `values` are counts and bytes by name; `message` is why it stopped short, or refused."""

    outcome: StepOutcome
    values: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


class Lever(Frozen, ABC):
    """One lever. Its fields are its parameters."""

    scope: ClassVar[Scope]
    cost: ClassVar[str]
    """What it may cost, in a sentence for people."""
    undone: ClassVar[str]
    """How it is undone."""
    touching_frees: ClassVar[bool] = False
    """Whether tables go when the VM touches its memory, rather than come again."""

    @abstractmethod
    def refusal(self, target: LeverTarget) -> str:
        """Why it must not, or cannot, be used on this VM now; empty if it can. Changes nothing."""

    @abstractmethod
    def predict(self, target: LeverTarget, held: int | None) -> Prediction:
        """What it would do to a VM that holds so many bytes of second-level tables. Changes nothing; raises
        OSError and InfrastructureError."""

    def reclaimable(self, held: int | None, predicted: Prediction) -> int | None:
        """Of what a VM holds, the bytes that are free in the end: once it has touched all that its host has
        of it. None where that is not known.

        What is free at once may be more, until faults make tables anew; so `tables_at_most` is taken off. A
        lever that frees by the VM's touches has done so by then, and leaves `tables_at_least`.
        """
        left = predicted.tables_at_least if self.touching_frees else predicted.tables_at_most
        return None if held is None or left is None else max(0, held - left)

    @abstractmethod
    def pull(self, target: LeverTarget) -> Pulled:
        """Do it, unless it refuses. Raises InfrastructureError where the host is lost."""


LEVERS: Registry[type[Lever]] = Registry("lever", "orchestrator.levers")

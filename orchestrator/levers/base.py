"""The shape of a lever: on what it acts, what it costs, how it is undone, when it refuses, what it frees."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from orchestrator.host.collapse import Identity
from orchestrator.host.domain import Domain
from orchestrator.host.machine import Frozen
from orchestrator.host.qemu_process import Segment, status_bytes
from orchestrator.host.shell import HostShell
from orchestrator.levers.memory import GuestMemory
from orchestrator.procfs import MEMINFO, VMSTAT, kib_lines, second_level_bytes
from orchestrator.records.step import StepOutcome
from orchestrator.registry import Registry


class Scope(StrEnum):
    """Whose tables a lever acts on."""

    HOST = "all VMs of the host"
    VM = "one VM"


@dataclass(frozen=True)
class Held:
    """What is held at one instant: measured, in bytes.

    `second_level` is of all VMs of the host, None where its kernel does not count; `resident` and
    `page_tables` are VmRSS and VmPTE of the VM's QEMU.
    """

    second_level: int | None
    resident: int
    page_tables: int


@dataclass(frozen=True)
class LeverTarget:
    """A VM, and its host. `segments` are where its RAM lies in QEMU, `runtime` is the folder in which what
    `clean` has to put right is noted, `wait` sleeps."""

    domain: Domain
    segments: tuple[Segment, ...]
    runtime: Path
    wait: Callable[[float], object] = time.sleep

    @property
    def shell(self) -> HostShell:
        """The host."""
        return self.domain.qemu.shell

    @cached_property
    def identity(self) -> Identity:
        """Whose QEMU's process is, when it is first asked. Raises OSError."""
        return self.shell.identity(self.domain.qemu.pid)

    def held(self) -> Held:
        """What is held now. Raises OSError where the VM is gone."""
        files = self.shell.texts(MEMINFO, VMSTAT)
        own = status_bytes(self.domain.qemu)
        counted = second_level_bytes(kib_lines(files.get(MEMINFO, "")), files.get(VMSTAT, ""))
        return Held(counted, own.get("VmRSS", 0), own.get("VmPTE", 0))

    @cached_property
    def memory(self) -> GuestMemory:
        """What QEMU has of the VM's memory, when it is first asked. Raises OSError."""
        return GuestMemory.read(self.domain, self.segments)


@dataclass(frozen=True)
class Prediction:
    """What a lever would do, in bytes: predicted from what was measured. None where `why_not` says why.

    At most `frees_at_most` of second-level tables go at once. Faults make anew what is used; when the VM has
    touched all that its host has of it, `frees_at_least` are gone for good. `takes_at_most` is memory that
    the VM's process gains.
    """

    frees_at_most: int | None
    frees_at_least: int | None
    takes_at_most: int = 0
    ranges: int = 0
    why_not: str = ""


@dataclass(frozen=True)
class Pulled:
    """How it went. `values` are counts and bytes by name; `said` is why it stopped short, or refused."""

    outcome: StepOutcome
    values: Mapping[str, float] = field(default_factory=dict)
    said: str = ""


class Lever(Frozen, ABC):
    """One lever. Its fields are its parameters."""

    scope: ClassVar[Scope]
    cost: ClassVar[str]
    """What it may cost, in a sentence for people."""
    undone: ClassVar[str]
    """How it is undone."""

    @abstractmethod
    def refusal(self, target: LeverTarget) -> str:
        """Why it must not, or cannot, be used on this VM now; empty if it can. Changes nothing."""

    @abstractmethod
    def predict(self, target: LeverTarget) -> Prediction:
        """What it would do. Changes nothing; raises OSError and InfrastructureError."""

    @abstractmethod
    def pull(self, target: LeverTarget) -> Pulled:
        """Do it, unless it refuses. Raises InfrastructureError where the host is lost."""


LEVERS: Registry[type[Lever]] = Registry("lever", "orchestrator.levers")

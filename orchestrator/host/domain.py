"""The seam to a running virtual machine: what actions and probes may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.host.shell import HostShell

if TYPE_CHECKING:  # lxml, which a check of a scenario does without
    from orchestrator.host.domain_memory import DomainMemory


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU, and the host where it runs."""

    pid: int
    shell: HostShell = field(default_factory=HostShell)


@dataclass(frozen=True)
class VirtioMemState:
    """A virtio-mem device as QEMU sees it; all in bytes, `address` is guest-physical."""

    address: int
    size: int  # plugged now
    requested: int
    maximum: int
    block: int


@dataclass(frozen=True)
class Dimm:
    """A plugged pc-dimm as QEMU sees it; bytes, `address` is guest-physical."""

    alias: str
    slot: int
    address: int
    size: int


@dataclass(frozen=True)
class DimmAnswer:
    """What was said of a DIMM: by the guest's _OST method (ACPI 6.5, 6.3.5), or by QEMU.

    `source` is the event that is answered and `status` the answer; both are None where QEMU itself
    refused, and `error` then says why. `alias` is empty when the DIMM was gone by then, `slot` is
    None where QEMU did not say.
    """

    alias: str
    slot: int | None
    source: int | None
    status: int | None
    error: str = ""


@dataclass(frozen=True)
class MonitorEvent:
    """An event of QEMU's monitor, with its data (qapi/*.json)."""

    name: str
    data: Mapping[str, Any]


class Domain(ABC):
    """A running virtual machine. Every call raises InfrastructureError when the host does not answer."""

    @property
    @abstractmethod
    def qemu(self) -> QemuProcess:
        """Its QEMU on its host."""

    @property
    @abstractmethod
    def libvirt_uri(self) -> str:
        """Its libvirt, as it is called on its own host."""

    @abstractmethod
    def memory(self) -> DomainMemory:
        """What libvirt says of its memory."""

    @abstractmethod
    def is_running(self) -> bool:
        """False once QEMU has ended or the guest has stopped, for whatever reason."""

    @abstractmethod
    def busy(self) -> dict[str, str]:
        """Domains of this libvirt, by name, that are migrated, saved or backed up now, and which of these."""

    @abstractmethod
    def virtio_mem(self) -> VirtioMemState | None:
        """The virtio-mem device, or None if there is none."""

    @abstractmethod
    def pci_memory(self) -> tuple[list[tuple[int, int]], int]:
        """Guest-physical (address, size) of the memory of its PCI devices, and how many buses there are."""

    @abstractmethod
    def request_virtio_mem(self, size_bytes: int) -> None:
        """Ask the guest to plug or unplug until `size_bytes` are plugged. Returns at once."""

    @abstractmethod
    def wait_memory_event(self, seconds: float) -> bool:
        """Wait for the next event of a memory device; False when none came. They can be lost: poll, too."""

    @abstractmethod
    def dimms(self) -> tuple[Dimm, ...]:
        """The plugged pc-dimm devices, by ascending address."""

    @abstractmethod
    def attach_dimm(self, size_bytes: int, alias: str = "") -> None:
        """Plug a pc-dimm, under an alias of ours ("ua-...") if one is given. Returns at once; the guest
        answers when it has accepted it."""

    @abstractmethod
    def request_dimm_removal(self, alias: str) -> None:
        """Ask the guest to eject a pc-dimm. Returns at once."""

    @abstractmethod
    def dimm_answers(self) -> tuple[DimmAnswer, ...]:
        """What was said of DIMMs since the last call, in order. Listens since the first of these calls."""

    @abstractmethod
    def request_balloon(self, size_bytes: int) -> None:
        """Ask the balloon driver to leave the guest `size_bytes` of its memory. Returns at once."""

    @abstractmethod
    def balloon_bytes(self) -> int:
        """What the balloon leaves the guest now (QEMU's `query-balloon`: actual)."""

    @abstractmethod
    def balloon_statistics(self) -> dict[str, int]:
        """libvirt's balloon statistics by their libvirt name, in its units (KiB, or counts)."""

    @abstractmethod
    def suspend(self) -> None:
        """Stop the vCPUs."""

    @abstractmethod
    def resume(self) -> None:
        """Let the vCPUs run again."""

    @abstractmethod
    def host_address(self, guest_physical: int) -> int:
        """Where a guest-physical address is mapped in QEMU's own address space (HMP `gpa2hva`)."""

"""The seam to a running virtual machine: what actions and probes may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VirtioMemState:
    """A virtio-mem device as QEMU sees it; all in bytes, `address` is guest-physical."""

    address: int
    size: int  # plugged now
    requested: int
    maximum: int
    block: int


class Domain(Protocol):
    """A running virtual machine. Every call raises InfrastructureError when the host does not answer."""

    @property
    def pid(self) -> int:
        """Process id of its QEMU on its host."""

    def is_running(self) -> bool:
        """False once QEMU has ended or the guest has stopped, for whatever reason."""

    def virtio_mem(self) -> VirtioMemState | None:
        """The virtio-mem device, or None if there is none."""

    def request_virtio_mem(self, size_bytes: int) -> None:
        """Ask the guest to plug or unplug until `size_bytes` are plugged. Returns at once."""

    def wait_memory_event(self, seconds: float) -> bool:
        """Wait for the next size-change event; False when none came. Events can be lost: poll, too."""

    def request_balloon(self, size_bytes: int) -> None:
        """Ask the balloon driver to leave the guest `size_bytes` of its memory. Returns at once."""

    def balloon_bytes(self) -> int:
        """What the balloon leaves the guest now (QEMU's `query-balloon`: actual)."""

    def balloon_statistics(self) -> dict[str, int]:
        """libvirt's balloon statistics by their libvirt name, in its units (KiB, or counts)."""

    def suspend(self) -> None:
        """Stop the vCPUs."""

    def resume(self) -> None:
        """Let the vCPUs run again."""

    def host_address(self, guest_physical: int) -> int:
        """Where a guest-physical address is mapped in QEMU's own address space (HMP `gpa2hva`)."""

"""What a guest is made of, as a scenario asks for it. Pure data; the domain XML follows from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.units import MIB, Size

# Linux adds, offlines and removes memory by blocks of this size on x86-64, as long as the guest boots
# with less than 64 GiB (arch/x86/mm/init_64.c, probe_memory_block_size()).
MEMORY_BLOCK_BYTES = 128 * MIB
MOST_DIMMS = 256  # QEMU's ACPI_MAX_RAM_SLOTS (hw/acpi/memory_hotplug.h of QEMU)


class Frozen(BaseModel):
    """Base of all models that cross module borders: immutable, and unknown keys are errors.

    The docstring below a field describes it, in the JSON schema as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class VirtioMem(Frozen):
    """A virtio-mem device (virtio spec 1.2, 5.15)."""

    size: Size
    """Bytes that the device could plug at the most."""
    block: Size = 2 * MIB
    """Granularity of plug and unplug, in bytes: a power of two of at least 2 MiB."""
    plugged: Size = 0
    """Bytes that the guest is asked to plug when it boots."""
    dynamic_memslots: bool = False
    """Whether QEMU gives KVM memory slots only for what is plugged, and removes them with it."""


class Balloon(Frozen):
    """The virtio-balloon device (virtio spec 1.2, 5.5)."""

    free_page_reporting: bool = True
    """Whether the guest reports pages that it has no use for, so that QEMU gives them back to the host."""
    deflate_on_oom: bool = False
    """Whether an inflated balloon gives pages back before the guest's OOM killer takes a process."""


class Machine(Frozen):
    """A guest's devices. Sizes are bytes."""

    vcpus: Annotated[int, Field(ge=1, le=256)] = 2
    """Virtual CPUs."""
    memory: Size
    """Bytes of RAM that the guest boots with, without what virtio-mem and DIMMs add."""
    virtio_mem: VirtioMem | None = None
    """The virtio-mem device; without it the guest has none."""
    dimms: Annotated[tuple[Size, ...], Field(max_length=MOST_DIMMS)] = ()
    """Sizes of the pc-dimm devices that can be plugged; the guest boots with none of them."""
    balloon: Balloon = Balloon()
    """The balloon, which every guest has."""

    @property
    def maximum_memory(self) -> int:
        """Bytes of RAM with every device fully plugged."""
        return self.boot_maximum + sum(self.dimms)

    @property
    def boot_maximum(self) -> int:
        """Bytes of RAM of the devices that are there at boot, fully plugged: all but the DIMMs."""
        return self.memory + (self.virtio_mem.size if self.virtio_mem else 0)


class HostSetup(Frozen):
    """What is set on the host while its guest runs; put back in the end."""

    thp: Literal["host", "always", "madvise", "never"] = "host"
    """Transparent huge pages of the host; `host` leaves what it has."""

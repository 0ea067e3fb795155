"""What a guest is made of, as a scenario asks for it. Pure data; the domain XML follows from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.units import MIB, Size


class Frozen(BaseModel):
    """Base of all models that cross module borders: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VirtioMem(Frozen):
    """A virtio-mem device (virtio spec 1.2, 5.15)."""

    size: Size
    """Bytes that the device could plug at the most."""
    block: Size = 2 * MIB
    """Granularity of plug and unplug, in bytes: a power of two of at least 2 MiB."""


class Balloon(Frozen):
    """The virtio-balloon device (virtio spec 1.2, 5.5)."""

    free_page_reporting: bool = True


class Machine(Frozen):
    """A guest's devices. Sizes are bytes."""

    vcpus: Annotated[int, Field(ge=1, le=256)] = 2
    memory: Size
    virtio_mem: VirtioMem | None = None
    balloon: Balloon = Balloon()

    @property
    def maximum_memory(self) -> int:
        """Bytes of RAM with every device fully plugged."""
        return self.memory + (self.virtio_mem.size if self.virtio_mem else 0)

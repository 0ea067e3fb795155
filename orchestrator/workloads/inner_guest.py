"""A guest within the guest, under KVM: what second-level page tables it takes as it fills and empties."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from orchestrator.units import MIB, Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.program import ProgramDriver

MOMENTS = ("booted", "filled_1", "filled_2", "filled_3", "filled_4", "emptied")
READINGS = ("second_level_bytes", "kvm_pages_4k", "kvm_pages_2m", "ranges_4k", "ranges_2m")
# What the kernel, its initramfs and busybox take of the inner guest's memory, at the most.
_SYSTEM = 256 * MIB


@DRIVERS.register("inner-guest")
class InnerGuest(ProgramDriver):
    """Boots a guest in the guest, fills it in four parts, empties it by its balloon, and keeps it."""

    figures: ClassVar = tuple(f"{moment}_{reading}" for moment in MOMENTS for reading in READINGS)

    memory: Annotated[Size, Field(ge=512 * MIB, multiple_of=2 * MIB)]
    fill: Annotated[Size, Field(ge=4 * MIB, multiple_of=MIB)]
    leave: Annotated[Size, Field(ge=_SYSTEM, multiple_of=MIB)]

    @model_validator(mode="after")
    def _sizes_that_fit(self) -> Self:
        if self.fill + _SYSTEM > self.memory:
            raise ValueError("fill: it and 256MiB for the inner guest's kernel must fit into memory")
        if self.leave > self.memory:
            raise ValueError("leave: it must be at most memory")
        return self

    @property
    def processes(self) -> tuple[str, ...]:
        return (self.name, "qemu-system-x86")

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        return [str(self.memory), f"fill={self.fill}", f"leave={self.leave}"]

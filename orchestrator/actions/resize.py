"""Growing and shrinking a guest by its virtio-mem device: `plug` and `unplug`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import TrialContext
from orchestrator.actions.settle import Patience, move
from orchestrator.errors import InfrastructureError
from orchestrator.host.machine import Machine
from orchestrator.units import Duration, Size, format_size, write_size


class _Resize(Action):
    """Set the size that the device is asked for, and wait until it settles."""

    verb: ClassVar[str]
    sign: ClassVar[int]

    to: Size
    """Size of the device that is asked for."""
    within: Duration = 300.0
    """How long it may move at the most."""
    settle: Duration = 15.0
    """How long its size must stay the same to count as settled."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        device = machine.virtio_mem
        if device is None:
            yield FieldProblem(
                "to", "the machine has no virtio-mem device", "add `virtio_mem: {size: 2GiB}` to `machine`"
            )
            return
        if self.to > device.size:
            yield FieldProblem(
                "to",
                f"{write_size(self.to)} is more than the device's size",
                f"ask for at most {write_size(device.size)}, or make `machine.virtio_mem.size` larger",
            )
        if self.to % device.block:
            nearest = self.to // device.block * device.block
            yield FieldProblem(
                "to",
                f"{write_size(self.to)} is not a multiple of the device's block, {write_size(device.block)}",
                f"the next one below is {write_size(nearest)}",
            )

    def patience(self) -> Patience:
        """How long to watch it."""
        return Patience(self.within, self.settle)

    def describe(self) -> str:
        return f"{self.verb} to {format_size(self.to)}"

    def run(self, trial: TrialContext) -> None:
        domain = trial.domain
        if domain.virtio_mem() is None:
            raise InfrastructureError("the guest has no virtio-mem device")

        def plugged() -> int:
            now = domain.virtio_mem()
            return now.size if now else 0

        move(
            trial,
            lambda: domain.request_virtio_mem(self.to),
            plugged,
            self.to,
            sign=self.sign,
            patience=self.patience(),
            wait=domain.wait_memory_event,
        )


@ACTIONS.register("plug")
class Plug(_Resize):
    """Give the guest memory: ask its virtio-mem device to grow to a size."""

    verb: ClassVar = "plug"
    sign: ClassVar = 1


@ACTIONS.register("unplug")
class Unplug(_Resize):
    """Take memory back: ask the guest's virtio-mem device to shrink to a size."""

    takes_memory: ClassVar = True
    verb: ClassVar = "unplug"
    sign: ClassVar = -1

    watch: Duration = 0.0
    """How long to go on watching after that: the driver tries again after 50 s, and ever more seldom."""

    def patience(self) -> Patience:
        """How long to watch it."""
        return Patience(self.within, self.settle, self.watch)

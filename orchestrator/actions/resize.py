"""Growing and shrinking a guest by its virtio-mem device: `plug` and `unplug`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import StepContext
from orchestrator.actions.settle import SettleTimeouts, move
from orchestrator.errors import InfrastructureError
from orchestrator.host.domain import Domain
from orchestrator.host.machine import Machine
from orchestrator.records.step import Direction, Effect, Mechanism, StepOutcome, StepResult, Target
from orchestrator.units import Duration, Size, format_size, write_size


class _Resize(Action):
    """Set the size that the device is asked for, and wait until it settles."""

    verb: ClassVar[str]
    sign: ClassVar[int]

    to: Size
    """Size of the device that is asked for."""
    timeout: Duration = 300.0
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

    def patience(self) -> SettleTimeouts:
        """How long to watch it."""
        return SettleTimeouts(self.timeout, self.settle)

    def describe(self) -> str:
        return f"{self.verb} to {format_size(self.to)}"

    def run(self, trial: StepContext) -> StepResult:
        return self._resize(trial, trial.domain)

    def _resize(self, trial: StepContext, domain: Domain) -> StepResult:
        if domain.virtio_mem() is None:
            raise InfrastructureError("the guest has no virtio-mem device")

        def plugged() -> int:
            now = domain.virtio_mem()
            if now is None:
                raise InfrastructureError("the guest's virtio-mem device is gone")
            return now.size

        return move(
            trial,
            lambda: domain.request_virtio_mem(self.to),
            plugged,
            self.to,
            sign=self.sign,
            patience=self.patience(),
            wait=domain.wait_memory_event,
        )


class _Growing(_Resize):
    effect: ClassVar = Effect(Mechanism.VIRTIO_MEM, direction=Direction.GIVE)
    verb: ClassVar = "plug"
    sign: ClassVar = 1


class _Shrinking(_Resize):
    effect: ClassVar = Effect(Mechanism.VIRTIO_MEM, direction=Direction.TAKE)
    verb: ClassVar = "unplug"
    sign: ClassVar = -1


@ACTIONS.register("plug")
class Plug(_Growing):
    """Give the guest memory: ask its virtio-mem device to grow to a size."""


@ACTIONS.register("unplug")
class Unplug(_Shrinking):
    """Take memory back: ask the guest's virtio-mem device to shrink to a size."""

    watch: Duration = 0.0
    """How long to go on watching after that: the driver tries again after 50 s, and ever more seldom."""

    def patience(self) -> SettleTimeouts:
        """How long to watch it."""
        return SettleTimeouts(self.timeout, self.settle, self.watch)

    def unplugs_by(self, machine: Machine) -> int | None:
        return machine.virtio_mem.block if machine.virtio_mem else None


NO_GUEST_OF_OURS = "the host is no guest of ours, so its memory is not for us to take"


class _HostResize(_Resize):
    """The same for the host of the guest, where that one is a guest as well (`host: nested`)."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:  # noqa: ARG002  # not of that machine
        yield from ()

    def describe(self) -> str:
        return f"{self.verb} the host to {format_size(self.to)}"

    def run(self, trial: StepContext) -> StepResult:
        domain = trial.host_domain
        if domain is None:
            return StepResult(StepOutcome.REFUSED, message=NO_GUEST_OF_OURS)
        return self._resize(trial, domain)


@ACTIONS.register("host_plug")
class HostPlug(_HostResize, _Growing):
    """Give a nested host memory, by its virtio-mem device."""

    effect: ClassVar = replace(_Growing.effect, target=Target.HOST)


@ACTIONS.register("host_unplug")
class HostUnplug(_HostResize, _Shrinking):
    """Take memory from a nested host while its guest runs. Any other host refuses."""

    effect: ClassVar = replace(_Shrinking.effect, target=Target.HOST)

"""Taking boot memory by the balloon, and giving it back: `inflate` and `deflate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import StepContext
from orchestrator.actions.settle import SettleTimeouts, move
from orchestrator.host.machine import Machine
from orchestrator.records.step import Direction, Effect, Mechanism, StepResult
from orchestrator.units import PAGE_BYTES, Duration, Size, format_size, write_size


def _leave(trial: StepContext, less: int, sign: int, patience: SettleTimeouts) -> StepResult:
    """Ask the balloon to leave the guest all but `less` bytes."""
    domain = trial.domain
    # QEMU counts plugged DIMMs in, virtio-mem not (get_current_ram_size(), hw/virtio/virtio-balloon.c).
    target = trial.machine.memory + sum(dimm.size for dimm in domain.dimms()) - less
    return move(
        trial,
        lambda: domain.request_balloon(target),
        domain.balloon_bytes,
        target,
        sign=sign,
        patience=patience,
        wait=trial.sleep,
    )


@ACTIONS.register("inflate")
class Inflate(Action):
    """Take memory by the balloon: by this much of what the guest booted with."""

    effect: ClassVar = Effect(Mechanism.BALLOON, direction=Direction.TAKE)

    by: Size
    """How much of the boot memory the balloon is to take."""
    timeout: Duration = 120.0
    """How long it may move at the most."""
    settle: Duration = 5.0
    """How long its size must stay the same to count as settled."""
    watch: Duration = 0.0
    """How long to go on watching after that: the driver tries again for as long as it lacks pages."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        if not 0 < self.by < machine.memory:
            yield FieldProblem(
                "by",
                f"the balloon cannot take {write_size(self.by)} of {write_size(machine.memory)} boot memory",
                f"ask for less than {write_size(machine.memory)}",
            )
        if self.by % PAGE_BYTES:
            yield FieldProblem(
                "by", f"{write_size(self.by)} is no whole number of pages", "use a multiple of 4KiB"
            )

    def describe(self) -> str:
        return f"inflate the balloon by {format_size(self.by)}"

    def run(self, trial: StepContext) -> StepResult:
        return _leave(trial, self.by, -1, SettleTimeouts(self.timeout, self.settle, self.watch))


@ACTIONS.register("deflate")
class Deflate(Action):
    """Deflate the balloon: the guest has all its pages again."""

    effect: ClassVar = Effect(Mechanism.BALLOON, direction=Direction.GIVE)

    timeout: Duration = 120.0
    """How long it may move at the most."""
    settle: Duration = 5.0
    """How long its size must stay the same to count as settled."""

    def describe(self) -> str:
        return "deflate the balloon"

    def run(self, trial: StepContext) -> StepResult:
        return _leave(trial, 0, 1, SettleTimeouts(self.timeout, self.settle))

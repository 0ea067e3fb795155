"""Plugging and ejecting pc-dimm devices over ACPI: `plug_dimm` and `unplug_dimm`.

The guest answers each request by its _OST method, which QEMU passes on (ACPI_DEVICE_OST,
hw/acpi/memory_hotplug.c). Linux ejects a DIMM when it could offline all of its memory blocks, and
answers "device busy" when it could not (acpi_scan_hot_remove(), drivers/acpi/scan.c). It works
through requests one by one, and a DIMM whose pages can be moved, but never all at once, keeps it
busy for ever: offline_pages() gives up only at a signal, and a kernel thread gets none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from orchestrator.actions.base import ACTIONS, Action, FieldProblem
from orchestrator.actions.context import StepContext
from orchestrator.actions.settle import Settled, SettleTimeouts, settle
from orchestrator.host import ost
from orchestrator.host.domain import Dimm, DimmAnswer
from orchestrator.host.machine import MOST_DIMMS, Machine
from orchestrator.records.events import DimmAnswered
from orchestrator.records.step import Direction, Effect, Mechanism, StepOutcome, StepResult
from orchestrator.units import Duration

# A guest can answer as often as it likes; Linux does so twice for each request.
_MOST_EVENTS = 20 * MOST_DIMMS

Count = Annotated[int, Field(ge=1, le=MOST_DIMMS)]


@dataclass
class _Answers:
    """What the guest answers about some DIMMs while a step waits for it."""

    trial: StepContext
    dimms: Sequence[Dimm]
    counts: Callable[[DimmAnswer], bool]
    first_ns: int | None = None
    last_ns: int | None = None
    answers: int = 0
    message: str = ""
    accepted: set[int] = field(default_factory=set)  # slots
    refused: set[int] = field(default_factory=set)

    def listen(self) -> None:
        """Take in what came since the last time, and record it."""
        slots = {dimm.alias: dimm.slot for dimm in self.dimms}
        for answer in self.trial.domain.dimm_answers():
            slot = slots.get(answer.alias) if answer.slot is None else answer.slot
            if slot in slots.values() and self.counts(answer) and self.answers < _MOST_EVENTS:
                self._take(answer, slot)

    def _take(self, answer: DimmAnswer, slot: int | None) -> None:
        assert slot is not None  # noqa: S101  # it is one of ours
        now_ns, words = self.trial.now_ns(), ost.in_words(answer)
        self.first_ns = now_ns if self.first_ns is None else self.first_ns
        self.answers += 1
        self.trial.record(
            DimmAnswered(
                t_ns=now_ns,
                step=self.trial.step,
                slot=slot,
                source=answer.source,
                status=answer.status,
                message=words,
            )
        )
        if ost.is_pending(answer):
            return
        self.last_ns = now_ns
        if ost.is_failure(answer):
            self.refused.add(slot)
            self.message = words
        else:
            # Linux says so of an ejection when the DIMM is gone already, so the step may be over by then.
            self.accepted.add(slot)

    def result(self, came: Settled, requested_ns: int, **values: float) -> StepResult:
        """How the step went. An answer is a sign of the guest, and a refusal an end."""
        signs = [sign for sign in (self.first_ns, came.acknowledged_ns) if sign is not None]
        ends = [end for end in (self.last_ns, came.settled_ns) if end is not None]
        return StepResult(
            came.outcome,
            requested_ns=requested_ns,
            acknowledged_ns=min(signs, default=None),
            settled_ns=None if came.outcome is StepOutcome.TIMEOUT else max(ends, default=None),
            values={
                **came.values,
                **values,
                "ost_answers": self.answers,
                "ost_failures": len(self.refused),
            },
            curve=came.curve,
            message=self.message,
        )


class _DimmAction(Action):
    """What both have in common."""

    count: Count | None = None
    """How many, at the most; all of them if it is left out."""

    def problems(self, machine: Machine) -> Iterator[FieldProblem]:
        have = len(machine.dimms)
        if not have:
            right = "add `dimms: [512MiB, 512MiB]` to `machine`"
            yield FieldProblem("count", "the machine has no DIMMs", right)
        elif self.count and self.count > have:
            wrong = f"{self.count} are more DIMMs than the machine has"
            yield FieldProblem("count", wrong, f"it has {have}")


@ACTIONS.register("plug_dimm")
class PlugDimm(_DimmAction):
    """Plug DIMMs of `machine.dimms`, in its order; done when the guest has accepted each one.

    The memory is of use only once the guest has it online, which `setup.online_policy` sees to.
    """

    effect: ClassVar = Effect(Mechanism.PC_DIMM, direction=Direction.GIVE)

    timeout: Duration = 120.0
    """How long the guest may take at the most."""

    def describe(self) -> str:
        return f"plug {_dimms(self.count)}"

    def run(self, trial: StepContext) -> StepResult:
        domain = trial.domain
        domain.dimm_answers()  # answers to earlier requests
        plugged = domain.dimms()
        missing = list(trial.machine.dimms)
        for dimm in plugged:
            if dimm.size in missing:
                missing.remove(dimm.size)
        wanted = missing[: self.count]
        requested_ns = trial.now_ns()
        for size in wanted:
            domain.attach_dimm(size)
        added = [dimm for dimm in domain.dimms() if dimm.slot not in {old.slot for old in plugged}]
        answers = _Answers(trial, added, ost.is_insertion)
        before = sum(dimm.size for dimm in plugged)

        def accepted_bytes() -> int:
            answers.listen()
            return before + sum(dimm.size for dimm in added if dimm.slot in answers.accepted)

        came = settle(
            trial,
            accepted_bytes,
            before + sum(wanted),
            before=before,
            sign=1,
            requested_ns=requested_ns,
            patience=SettleTimeouts(self.timeout),
            wait=domain.wait_memory_event,
            answered=lambda: len(answers.accepted | answers.refused) == len(added),
        )
        return answers.result(
            came, requested_ns, dimms_requested=len(wanted), dimms_plugged=len(answers.accepted)
        )


@ACTIONS.register("unplug_dimm")
class UnplugDimm(_DimmAction):
    """Ask the guest to eject DIMMs, all at once: the one with the highest address first.

    Settled means that each one is gone or was refused. A DIMM goes as a whole or not at all.
    """

    effect: ClassVar = Effect(Mechanism.PC_DIMM, direction=Direction.TAKE)

    timeout: Duration = 120.0
    """How long the guest may take at the most."""
    watch: Duration = 0.0
    """How long to go on watching after that; Linux does not try a DIMM again that it refused."""

    def describe(self) -> str:
        return f"unplug {_dimms(self.count)}"

    def unplugs_by(self, machine: Machine) -> int | None:
        # Sums of DIMMs of several sizes differ by no less than what all sizes are multiples of.
        return math.gcd(*machine.dimms) or None

    def run(self, trial: StepContext) -> StepResult:
        domain = trial.domain
        domain.dimm_answers()  # answers to earlier requests
        plugged = domain.dimms()
        wanted = plugged[::-1][: self.count]
        answers = _Answers(trial, wanted, ost.is_ejection)
        before, asked = sum(dimm.size for dimm in plugged), sum(dimm.size for dimm in wanted)
        gone: set[str] = set()

        def left() -> int:
            answers.listen()
            there = domain.dimms()
            gone.update({dimm.alias for dimm in wanted} - {dimm.alias for dimm in there})
            return sum(dimm.size for dimm in there)

        def answered() -> bool:
            return all(dimm.alias in gone or dimm.slot in answers.refused for dimm in wanted)

        requested_ns = trial.now_ns()
        for dimm in wanted:
            domain.request_dimm_removal(dimm.alias)
        came = settle(
            trial,
            left,
            before - asked,
            before=before,
            sign=-1,
            requested_ns=requested_ns,
            patience=SettleTimeouts(self.timeout, watch=self.watch),
            wait=domain.wait_memory_event,
            answered=answered,
        )
        return answers.result(came, requested_ns, dimms_requested=len(wanted), dimms_gone=len(gone))


def _dimms(count: int | None) -> str:
    return "all DIMMs" if count is None else "1 DIMM" if count == 1 else f"{count} DIMMs"

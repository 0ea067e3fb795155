"""`slot`: a memory slot of a VM comes and goes, so that KVM frees all second-level tables of the VM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Final

from pydantic import Field

from orchestrator.deadline import Deadline, wait_for
from orchestrator.host import ost
from orchestrator.host.machine import MEMORY_BLOCK_BYTES
from orchestrator.host.noted_dimms import ALIAS, noted_dimm
from orchestrator.levers.base import LEVERS, Lever, LeverTarget, Prediction, Pulled, Scope
from orchestrator.records.step import StepOutcome
from orchestrator.units import MIB, Duration, Size, format_size

_LOOK_SECONDS: Final = 0.2
_ACCEPT_SECONDS: Final = 30.0  # it may answer late, or not at all
_AGAIN_SECONDS: Final = 2.0  # Linux tries once for each request


@LEVERS.register("slot")
class Slot(Lever):
    """Plug a small DIMM and unplug it: KVM frees all tables of the VM when the DIMM's memory slot goes.

    kvm_arch_flush_shadow_memslot() in arch/x86/kvm/mmu/mmu.c does that, since 6.12 unless the VMM disables
    KVM_X86_QUIRK_SLOT_ZAP_ALL (Documentation/virt/kvm/api.rst, KVM_CAP_DISABLE_QUIRKS2), which is not to be
    seen from outside: then KVM drops no more than what maps the slot.

    It needs the guest, which ejects the DIMM. By its online policy the guest may put memory of its own on it
    meanwhile, and must then offline it again.
    """

    scope: ClassVar = Scope.VM
    cost: ClassVar = (
        "the guest has a DIMM for a moment, and must eject it; then the VM takes a fault for each page or "
        "huge page that it uses"
    )
    undone: ClassVar = (
        "the DIMM is unplugged again, unless the guest refuses; the VM's own faults make the tables anew "
        "that it uses"
    )

    size: Annotated[Size, Field(ge=MIB)] = MEMORY_BLOCK_BYTES
    """Of the DIMM. Linux adds whole memory blocks only."""
    timeout: Duration = 120.0
    """How long the guest may take at most."""

    def refusal(self, target: LeverTarget) -> str:
        memory = target.domain.memory()
        if not memory.kvm:
            return f"{memory.name} is no VM of KVM's"
        ours = [alias for alias in memory.dimm_aliases if ALIAS.fullmatch(alias)]
        if ours:
            return f"{memory.name} has the DIMM {ours[0]} of an earlier attempt, or of one at this moment"
        if not memory.free_slots:
            return f"{memory.name} has no slot for a DIMM (<maxMemory slots='...'>)"
        if memory.room < self.size:
            room, size = format_size(memory.room), format_size(self.size)
            return f"the memory of {memory.name} may grow by {room} (<maxMemory>), and the DIMM has {size}"
        job = target.domain.busy().get(memory.name)
        return f"{memory.name} is busy ({job}), and KVM logs what is written" if job else ""

    def predict(self, target: LeverTarget, held: int | None) -> Prediction:  # noqa: ARG002  # all go
        return Prediction(0, target.memory.needed(), takes_at_most=self.size)

    def pull(self, target: LeverTarget) -> Pulled:
        why_not = self.refusal(target)
        if why_not:
            return Pulled(StepOutcome.REFUSED, message=why_not)
        deadline = Deadline(self.timeout)
        with noted_dimm(target.domain, target.shell, target.runtime) as dimm:
            guest = _Guest(target, dimm.alias)
            guest.listen()  # answers to earlier requests
            target.domain.attach_dimm(self.size, dimm.alias)
            guest.wait(lambda: guest.accepted, deadline.sooner(_ACCEPT_SECONDS))
            gone = guest.eject(deadline)
        values = {"dimm_bytes": self.size}
        if gone:
            return Pulled(StepOutcome.DONE, values)
        outcome = StepOutcome.REFUSED if guest.refusal else StepOutcome.TIMEOUT
        reasons = (guest.refusal, dimm.left.brief, dimm.left.hint)
        return Pulled(outcome, values, ", ".join(filter(None, reasons)))


class _Guest:
    """What it answers about a DIMM: whether it has dealt with its insertion, and why it last refused to eject
    it."""

    def __init__(self, target: LeverTarget, alias: str) -> None:
        self.accepted = False
        self.refusal = ""
        self._target, self._alias = target, alias

    def eject(self, deadline: Deadline) -> bool:
        """Ask for it, again after each refusal; whether the DIMM has gone."""
        while True:
            self.refusal = ""
            self._target.domain.request_dimm_removal(self._alias)
            self.wait(lambda: self._gone() or bool(self.refusal), deadline)
            if self._gone() or deadline.expired:
                return self._gone()
            self._target.wait(min(_AGAIN_SECONDS, deadline.remaining))

    def wait(self, what: Callable[[], bool], deadline: Deadline) -> None:
        """Until it is so, or the time is over."""

        def look() -> bool | None:
            self.listen()
            return what() or None

        wait_for(look, deadline, every=_LOOK_SECONDS, sleep=self._target.wait)

    def listen(self) -> None:
        """Take in what came since the last time."""
        for answer in self._target.domain.dimm_answers():
            if answer.alias != self._alias or ost.is_pending(answer):
                continue
            if ost.is_insertion(answer):  # a guest that could not add it does not hold on to it
                self.accepted = True
            elif ost.is_ejection(answer) and ost.is_failure(answer):
                self.refusal = ost.in_words(answer)

    def _gone(self) -> bool:
        """By libvirt, which drops a DIMM once QEMU has: its memory slot went before."""
        return self._alias not in self._target.domain.memory().dimm_aliases

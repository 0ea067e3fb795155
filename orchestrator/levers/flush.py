"""`flush`: KVM drops all second-level tables of all VMs."""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from orchestrator.host.settings import NX_HUGE_PAGES, PATHS, WRITE_SECONDS, chosen, noted_setting
from orchestrator.interrupts import deferred
from orchestrator.levers.base import LEVERS, Lever, LeverTarget, Prediction, Pulled, Scope
from orchestrator.records.step import StepOutcome

ITLB_MULTIHIT: Final = "/sys/devices/system/cpu/vulnerabilities/itlb_multihit"
# get_nx_huge_pages() in arch/x86/kvm/mmu/mmu.c prints `never` or a bool: what turns it, and what it is then.
_OTHER: Final = {"N": ("force", "Y"), "Y": ("off", "N")}
_NOT_NOW: Final = {
    errno.EAGAIN: "somebody else is in a flush",
    errno.ESTALE: "somebody else has changed nx_huge_pages this moment",
    errno.EPERM: "only root may change nx_huge_pages",
    errno.EACCES: "only root may change nx_huge_pages",
}


@LEVERS.register("flush")
class Flush(Lever):
    """Change nx_huge_pages of KVM and put it back: each time KVM frees all second-level tables of all VMs.

    set_nx_huge_pages() in arch/x86/kvm/mmu/mmu.c calls kvm_mmu_zap_all_fast() for every VM where the value
    differs from the one before. Contents are no part of it: faults map again what is used.

    The setting mitigates iTLB multihit (Documentation/admin-guide/hw-vuln/multihit.rst). Where it is on, it
    is turned off for that moment on a CPU that is not affected, and no other; where it is off, it is turned
    on and off, which weakens nothing.
    """

    scope: ClassVar = Scope.HOST
    cost: ClassVar = (
        "every VM of the host waits while its tables are zapped, and then takes a fault for each page or "
        "huge page that it uses"
    )
    undone: ClassVar = (
        "nx_huge_pages is put back at once; the VMs' own faults make the tables anew that they use"
    )

    def refusal(self, target: LeverTarget) -> str:
        path = PATHS[NX_HUGE_PAGES]
        texts = target.shell.texts(path, ITLB_MULTIHIT)
        if path not in texts:
            return f"{target.shell.name} has no {path}: KVM of x86 is not there, or keeps it from us"
        now, multihit = chosen(texts[path]), texts.get(ITLB_MULTIHIT, "unknown").strip()
        if now == "never":
            return "nx_huge_pages is `never`, which lasts until KVM's module is loaded again"
        if now not in _OTHER:
            return f"nx_huge_pages says {now[:40]!r}, which this version does not know"
        if now == "Y" and multihit != "Not affected":
            return (
                f"nx_huge_pages is on and mitigates iTLB multihit ({multihit[:80]}): it must not be off, "
                "not for a moment"
            )
        busy = target.domain.busy()
        if busy:
            return "KVM logs what is written while " + "; ".join(
                f"{name} is busy ({job})" for name, job in sorted(busy.items())
            )
        return ""

    def predict(self, target: LeverTarget, held: int | None) -> Prediction:  # noqa: ARG002  # all go
        return Prediction(0, target.memory.needed())

    def pull(self, target: LeverTarget) -> Pulled:
        why_not = self.refusal(target)
        if why_not:
            return Pulled(StepOutcome.REFUSED, message=why_not)
        shell, path = target.shell, PATHS[NX_HUGE_PAGES]
        former = chosen(shell.text(path))
        if former not in _OTHER:
            return Pulled(StepOutcome.REFUSED, message=_NOT_NOW[errno.ESTALE])
        written, reads = _OTHER[former]
        try:
            with (
                deferred(),
                noted_setting(shell, target.runtime, NX_HUGE_PAGES, former=former, changed_to=reads),
            ):
                shell.set_and_restore(path, written, former, seconds=WRITE_SECONDS)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return Pulled(StepOutcome.REFUSED, message=_NOT_NOW[error.errno])
        return Pulled(StepOutcome.DONE)

"""What would make KVM, or the kernel, free tables of a VM, and how many. Predicted; nothing is done here."""

from __future__ import annotations

from orchestrator.audit.reading import Amount, Lever, ProcessReading
from orchestrator.audit.vm_ram import VmRam
from orchestrator.audit.vm_tables import HostTables
from orchestrator.host.domain_memory import DomainMemory
from orchestrator.printable import clean
from orchestrator.units import PAGE_BYTES, format_size

THIS_VM, ALL_VMS = "this VM", "all VMs of the machine"
_NX = "/sys/module/kvm/parameters/nx_huge_pages"
_UNAFFECTED = "Not affected"
_FAULTS = "each range that the guest uses faults once again"


def reclaimable(held: Amount, needed: Amount) -> Amount:
    """Tables held that nothing needs; predicted."""
    if held.value is None:
        return Amount.missing(f"what it holds is not known: {held.reason}")
    if needed.value is None:
        return Amount.missing(f"what it needs is not known: {needed.reason}")
    known = "; ".join(one for one in (held.reason, needed.reason) if one)
    # What needs more than it holds has memory that was not touched by way of KVM since its tables went.
    return Amount(max(0, held.value - needed.value), known.replace("at most", "at least"))


def flush(tables: Amount, host: HostTables, domain: DomainMemory | None) -> Lever:
    """A change of nx_huge_pages and back: KVM then frees all tables of all VMs (set_nx_huge_pages(),
    arch/x86/kvm/mmu/mmu.c)."""
    value, bug = host.nx_huge_pages, host.itlb_multihit
    if value not in {"N", "Y"}:
        why = f"{_NX} is `never`, which is for good until KVM is loaded again" if value == "never" else ""
        return Lever("flush", Amount.missing(why or f"{_NX} cannot be read"), ALL_VMS, _FAULTS, "")
    if bug != _UNAFFECTED:
        why = f"{_NX} protects this machine: its CPU has iTLB multihit ({bug or 'unknown'})"
        return Lever("flush", Amount.missing(why), ALL_VMS, _FAULTS, "")
    return Lever("flush", tables, ALL_VMS, _FAULTS, _reclaim("flush", domain))


def slot(tables: Amount, domain: DomainMemory | None) -> Lever:
    """A memory slot that comes and goes: KVM then frees all tables of the VM.

    kvm_arch_flush_shadow_memslot(), with KVM_X86_QUIRK_SLOT_ZAP_ALL (arch/x86/kvm).
    """
    if domain is None:
        why = "whether it has a slot for a DIMM is not known without libvirt"
        return Lever("slot", Amount.missing(why), THIS_VM, _FAULTS, "")
    if not domain.free_slots:
        why = "it has no slot for a DIMM (<maxMemory slots='...'>)"
        return Lever("slot", Amount.missing(why), THIS_VM, _FAULTS, "")
    cost = f"{_FAULTS}; the guest has a DIMM for a moment"
    return Lever("slot", tables, THIS_VM, cost, _reclaim("slot", domain))


def collapse(ram: VmRam, domain: DomainMemory | None) -> Lever:
    """MADV_COLLAPSE on ranges that are nearly full, 480 pages of 512 (MIN_PRESENT): one entry then maps each,
    with no last-level table."""
    lacking = f"{format_size(ram.lacking)} of memory that these ranges lack"
    cost = f"{lacking}; a table goes when the guest touches its range"
    if not ram.exact:
        return Lever("collapse", Amount.missing("which mappings are its RAM is not known"), THIS_VM, cost, "")
    return Lever(
        "collapse", Amount(ram.nearly_full * PAGE_BYTES), THIS_VM, cost, _reclaim("collapse", domain)
    )


def _reclaim(lever: str, domain: DomainMemory | None) -> str:
    """What to type; `reclaim` finds a VM by libvirt."""
    name = clean(domain.name) if domain else ""
    return f"orchestrator reclaim {lever} --domain {name} --dry-run" if name else ""


def unused(process: ProcessReading) -> Lever:
    """The VMM's own tables that map nothing."""
    todo = "they go with their process; CONFIG_PT_RECLAIM frees those of ranges that are discarded as a whole"
    return Lever("process", process.unused, THIS_VM, "none", todo)

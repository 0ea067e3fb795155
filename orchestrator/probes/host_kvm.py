"""What KVM counts of one guest (kvm_create_vm_debugfs(), virt/kvm/kvm_main.c)."""

from collections.abc import Iterator

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe, is_count

# Leaf entries by their size, and tables that were let go (arch/x86/kvm/x86.c, kvm_vm_stats_desc).
_WANTED = ("pages_4k", "pages_2m", "pages_1g", "mmu_shadow_zapped", "mmu_flooded", "mmu_recycled")
_GAP = "KVM does not tell: no guest under KVM, or its debugfs is not there to be read"


@PROBES.register("host_kvm")
class HostKvm(Probe):
    """Leaf entries of the guest's second-level tables, and what became of tables."""

    def from_host(self, host: HostView) -> Iterator[Reading]:
        found = host.shell.texts(f"/sys/kernel/debug/kvm/{host.domain.qemu.pid}-*/*")
        counts = {path.rpartition("/")[2]: text.strip() for path, text in found.items()}
        for name in _WANTED:
            count = counts.get(name, "")
            if is_count(count):
                yield Reading(name, int(count), "")
            else:
                yield Reading(name, None, "", gap=_GAP)

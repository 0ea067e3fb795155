"""What KVM counts of one guest (kvm_create_vm_debugfs(), virt/kvm/kvm_main.c)."""

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.observation import Reading
from orchestrator.probes.base import PROBES, HostView, Probe, is_count
from orchestrator.series import Series

_GAP = "KVM does not tell: no guest under KVM, or its debugfs is not there to be read"


@PROBES.register("host_kvm")
class HostKvm(Probe):
    """Leaf entries of the guest's second-level tables, and what became of tables."""

    # arch/x86/kvm/x86.c: kvm_vm_stats_desc, and of kvm_vcpu_stats_desc the sum over vCPUs
    series: ClassVar = (
        Series("pages_4k", "count", "leaf entries of 4 KiB in KVM's tables", moment="pages_4k"),
        Series("pages_2m", "count", "leaf entries of 2 MiB in KVM's tables", moment="pages_2m"),
        Series("pages_1g", "count", "leaf entries of 1 GiB in KVM's tables"),
        Series("mmu_shadow_zapped", "count", "shadow pages that KVM zapped"),
        Series("mmu_flooded", "count", "shadow pages that were zapped as the guest wrote to them too often"),
        Series("mmu_recycled", "count", "shadow pages that were zapped to make room for others"),
        Series("pf_fixed", "count", "faults that ended with an entry in KVM's tables"),
        Series("exits", "count", "times that a vCPU left the guest for KVM"),
    )

    def from_host(self, host: HostView) -> Iterator[Reading]:
        found = host.shell.texts(f"/sys/kernel/debug/kvm/{host.domain.qemu.pid}-*/*")
        counts = {path.rpartition("/")[2]: text.strip() for path, text in found.items()}
        for name in (one.name for one in self.series):
            count = counts.get(name, "")
            if is_count(count):
                yield Reading(name, int(count))
            else:
                yield Reading(name, None, gap=_GAP)

"""Second-level page tables of a host and of its VMs, as its kernel and KVM count them. Measured."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.audit.reading import Amount
from orchestrator.audit.vm_process import VmProcess, VmProcesses
from orchestrator.host.shell import HostShell
from orchestrator.observation import NO_SECOND_LEVEL
from orchestrator.printable import clean
from orchestrator.procfs import counters, kib_lines, memory_cgroup, second_level_bytes, unified_cgroup

_CGROUPS = "/sys/fs/cgroup"
_MEMINFO, _VMSTAT = "/proc/meminfo", "/proc/vmstat"
_NX, _ITLB = (
    "/sys/module/kvm/parameters/nx_huge_pages",
    "/sys/devices/system/cpu/vulnerabilities/itlb_multihit",
)
_LEAVES = "/sys/kernel/debug/kvm/*/pages_[421][kmg]"
_SIZES = ("4k", "2m", "1g")  # kvm_vm_stats_desc, arch/x86/kvm/x86.c

_COUNT = re.compile(r"^sec_pagetables ([0-9]{1,18})$", re.MULTILINE)

_NOT_COUNTED = "its kernel does not count second-level tables (Linux 6.1 does)"
_NO_LEAVES = "KVM's debugfs does not tell (as root, with /sys/kernel/debug mounted, it does)"


@dataclass(frozen=True)
class HostTables:
    """What a host says of second-level tables, read at one time."""

    total: Amount
    """Of all VMs."""
    nx_huge_pages: str
    """KVM's parameter as it reads; empty without KVM, or where it is not to be read."""
    itlb_multihit: str
    stats: Mapping[str, str]
    """memory.stat by the path of the cgroup below the mount, of those that VMs are in or below."""
    counts_iommu: bool
    """Whether the kernel counts tables of IOMMUs in the same figures, as Linux does since 6.11."""
    leaves: Mapping[str, Mapping[str, int]]
    """KVM's leaf entries by the name of the VM's folder (PID-DESCRIPTOR), then by size."""


def read_host(shell: HostShell, processes: Sequence[VmProcess]) -> HostTables:
    """Read it. Raises HostLostError."""
    paths = {
        above for one in processes if one.accelerator == "kvm" for above in _above(_memory_cgroup(one)[0])
    }
    names = {f"{_CGROUPS}{path.rstrip('/')}/memory.stat": path for path in paths}
    # A name of a cgroup may have what a pattern takes for a sign of its own.
    found = shell.texts(_MEMINFO, _VMSTAT, _NX, _ITLB, _LEAVES, *(glob.escape(path) for path in names))
    values = kib_lines(found.get(_MEMINFO, ""))
    vmstat = found.get(_VMSTAT, "")
    counted = second_level_bytes(values, vmstat)
    total = Amount.missing(_NOT_COUNTED) if counted is None else Amount(max(0, counted))
    leaves: dict[str, dict[str, int]] = {}
    for path, text in found.items():
        folder, name = PurePosixPath(path).parent.name, PurePosixPath(path).name
        if path.startswith("/sys/kernel/debug/") and text.strip().isdecimal():
            leaves.setdefault(folder, {})[name.removeprefix("pages_")] = int(text)
    return HostTables(
        total,
        found.get(_NX, "").strip(),
        found.get(_ITLB, "").strip(),
        {names[path]: text for path, text in found.items() if path in names},
        "nr_iommu_pages" in counters(vmstat),
        leaves,
    )


def held(process: VmProcess, among: VmProcesses, host: HostTables) -> Amount:
    """What the second-level tables of one VM take, of all levels.

    KVM allocates them in the VM's own threads, on the account of their memory cgroup (GFP_KERNEL_ACCOUNT,
    __kvm_mmu_topup_memory_cache(), virt/kvm/kvm_main.c). memory.stat counts them, and those of cgroups below.
    """
    if process.accelerator != "kvm":
        known = process.accelerator != "unknown"
        return Amount.missing(NO_SECOND_LEVEL if known else "whether it is a VM of KVM's is for root to see")
    own, why = _counting_cgroup(process, host)
    why = why or _why_shared(process, own, among)
    counted = _COUNT.search(host.stats.get(own, ""))
    if why or counted is None:
        return Amount.missing(why or _NOT_COUNTED)
    note = "with the tables of an IOMMU, since it uses VFIO" if process.vfio and host.counts_iommu else ""
    return Amount(int(counted[1]), note)


def _counting_cgroup(process: VmProcess, host: HostTables) -> tuple[str, str]:
    """The cgroup that counts a VM's memory, and else why there is none."""
    path, why = _memory_cgroup(process)
    own = next((above for above in _above(path) if above in host.stats), "")
    if not why and not own:
        why = f"cgroup {clean(path)} has no memory.stat: its memory controller is off"
    if not why and own == "/":
        why = "it is in the root cgroup, which counts the whole machine"
    return own, why


def _why_shared(process: VmProcess, own: str, among: VmProcesses) -> str:
    """Why what a cgroup counts is not one VM's; empty if it is."""
    others = [one for one in among.found if one.accelerator == "kvm" and _is_in(_memory_cgroup(one)[0], own)]
    number = sum(max(1, len(one.kvm)) for one in others)
    if number > 1:
        return f"its cgroup {clean(own)} has {number} VMs, and counts them together"
    unread = [unified_cgroup(text) for pid, text in among.unread if pid != process.pid]
    if among.cut or any(_is_in(path, own) for path in unread):
        return f"its cgroup {clean(own)} has other processes, of which only root sees whether they are VMs"
    return ""


def leaves_of(process: VmProcess, host: HostTables) -> tuple[dict[str, int], str]:
    """Leaf entries by size, and else why they are not known.

    KVM names a VM's folder by the thread that made it and the descriptor that this got
    (kvm_create_vm_debugfs(), virt/kvm/kvm_main.c).
    """
    if process.accelerator != "kvm":
        return {}, NO_SECOND_LEVEL if process.accelerator != "unknown" else _NO_LEAVES
    wanted = {(thread, number) for thread in process.threads for number in process.kvm}
    found = [counts for name, counts in host.leaves.items() if _identity(name) in wanted]
    if (
        not found
        or len(found) != len(process.kvm)
        or not all(size in one for one in found for size in _SIZES)
    ):
        return {}, _NO_LEAVES
    return {size: sum(one[size] for one in found) for size in _SIZES}, ""


def _identity(folder: str) -> tuple[int, int] | None:
    thread, _, number = folder.partition("-")
    return (int(thread), int(number)) if thread.isdecimal() and number.isdecimal() else None


def _memory_cgroup(process: VmProcess) -> tuple[str, str]:
    """Path of a VM's cgroup that may count its memory, and else why there is none."""
    found = memory_cgroup(process.cgroup)
    if found.v1:
        return "", "its memory is counted by cgroup v1, whose memory.stat has no second-level tables"
    return found.path, "" if found.path else "its cgroup is outside of those that are to be seen from here"


def _above(path: str) -> Iterator[str]:
    """A cgroup and those above it, the root last."""
    while path not in {"", "/"}:
        yield path
        path = path.rpartition("/")[0]
    yield "/"


def _is_in(path: str, cgroup: str) -> bool:
    return path == cgroup or path.startswith(f"{cgroup}/")

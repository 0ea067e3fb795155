"""What an audit found: of a process, of a VM, of a machine. Bytes, unless a name says otherwise.

The name of a field says where its value is from: `page_table_bytes`, `second_level_bytes` are measured;
`needed`, `deposited`, `unused` and `reclaimable` are predicted from what is mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Amount:
    """A number of bytes; None with the reason why it is not known.

    `reason` beside a number says under which condition it holds ("at least: ...").
    """

    value: int | None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("an amount that is not known has a reason")

    @classmethod
    def missing(cls, reason: str) -> Amount:
        """Not known, and why."""
        return cls(None, reason)


@dataclass(frozen=True)
class Gap:
    """A process that was not read, and why: it ended, it is another user's, the deadline was over."""

    pid: int
    comm: str
    reason: str


@dataclass(frozen=True)
class Levels:
    """Tables by level; counts."""

    pte: int = 0
    pmd: int = 0
    pud: int = 0
    p4d: int = 0
    """With 5 levels only. VmPTE counts neither these nor the top level (mm_inc_nr_puds() and the like,
    include/linux/mm.h: there is none for them)."""


@dataclass(frozen=True)
class SharedMemory:
    """What a process needs for one file, shmem object or hugetlbfs file that it maps shared."""

    key: str
    """Device and inode as /proc/PID/maps has them: the same for all that map it."""
    name: str
    needed_tables: int
    """Last-level tables that this mapping's pages are in; count."""


@dataclass(frozen=True)
class ProcessReading:
    """A process's page tables. `needed`, `deposited` and `unused` are predicted, the rest is measured."""

    pid: int
    started_ticks: int
    comm: str
    user: int
    unit: str
    """The systemd unit that it belongs to, or empty."""
    virtual_bytes: int
    resident_bytes: int
    swapped_bytes: int
    hugetlb_bytes: int
    page_table_bytes: int
    """VmPTE: all levels but the top one and the P4D, with deposited tables."""
    needed: Amount
    """Tables that its present and swapped-out pages take."""
    deposited: Amount
    """Tables kept for the split of anonymous huge pages."""
    unused: Amount
    """Held, less needed, less deposited: tables that map nothing."""
    zero_only: Amount
    """Last-level tables, counted as needed, that map zero pages only."""
    sparse: Amount
    """Last-level tables, counted as needed, in which at most 8 of 512 pages are there."""
    levels: Levels = Levels()
    shared: tuple[SharedMemory, ...] = ()
    libraries: tuple[str, ...] = ()
    """Allocators that it has mapped: jemalloc, tcmalloc, mimalloc."""
    cpu_seconds: float = 0.0
    """CPU time that reading it took on its machine."""
    longest_call_seconds: float = 0.0
    """The longest of the calls that hold its mmap_lock."""


@dataclass(frozen=True)
class Lever:
    """What would give memory of a VM back, and how much; predicted."""

    name: str
    amount: Amount
    """Bytes of tables that it frees."""
    scope: str
    """What it touches: this VM, or all VMs of the machine."""
    cost: str
    next: str
    """What to type, or to do."""


@dataclass(frozen=True)
class VmReading:
    """A VM. What its second-level tables hold is measured; what they need, what is reclaimable: predicted."""

    pid: int
    comm: str
    vmm: str
    """qemu, cloud-hypervisor, firecracker, or what the program is called."""
    accelerator: str
    """kvm, tcg or unknown."""
    domain: str | None
    """libvirt's name, else the name on its command line, else None."""
    uuid: str | None
    memory: Amount
    """Boot memory and DIMMs; without virtio-mem."""
    resident: Amount
    """Of its RAM, what is present in the VMM."""
    balloon: Amount
    """What the balloon leaves of `memory`."""
    virtio_mem: Amount
    """Plugged now."""
    virtio_mem_requested: Amount
    second_level_bytes: Amount
    """Second-level tables held; measured, of this VM alone."""
    second_level_needed: Amount
    second_level_of_machine: Amount
    """Those of all VMs of its machine; measured, the same for each."""
    leaves: Mapping[str, int] = field(default_factory=dict)
    """KVM's leaf entries by size: {"4k": n, "2m": n, "1g": n}; empty where they cannot be read."""
    leaves_reason: str = ""
    page_tables: ProcessReading | None = None
    """The VMM's own page tables."""
    page_tables_reason: str = ""
    memmap: Amount = Amount(None, "not computed")
    """Of the guest's kernel, for the memory that it has; predicted."""
    host_memmap: Amount = Amount(None, "not computed")
    """Of its machine's kernel, for what is resident; predicted."""
    huge: Amount = Amount(None, "not computed")
    """Of what is resident, in huge pages; measured."""
    reclaimable: tuple[Lever, ...] = ()


@dataclass(frozen=True)
class Advice:
    """What a diagnosis found in the page tables of one process, or of several, and what to do."""

    diagnosis: str
    pids: tuple[int, ...]
    amount: int
    """Bytes of page tables that it is about; predicted."""
    what: str
    next: tuple[str, ...]
    """What to type, or to change; the first is the nearest. Empty where nothing can be done."""
    source: str
    """Where that is documented."""


@dataclass(frozen=True)
class Cost:
    """What an audit took on the machine that was read."""

    cpu_seconds: float
    mapped_bytes: int
    """Resident memory of the processes that were read page by page."""
    longest_call_seconds: float

    @property
    def seconds_per_gib(self) -> float | None:
        """CPU time for each GiB mapped; None where nothing was."""
        return self.cpu_seconds / (self.mapped_bytes / (1 << 30)) if self.mapped_bytes else None


@dataclass(frozen=True)
class Audit:
    """A machine at one time."""

    machine: str
    when: float
    """Seconds since the epoch, by the clock of the machine that asked."""
    kernel: str
    pt_reclaim: bool | None
    """Whether the kernel has CONFIG_PT_RECLAIM; None where its configuration cannot be read."""
    vms: tuple[VmReading, ...]
    processes: tuple[ProcessReading, ...]
    """Read page by page; of each VM's process, `VmReading.page_tables`."""
    small_processes: int
    """Not read page by page, since all of their page tables together are small."""
    small_page_table_bytes: int
    advice: tuple[Advice, ...]
    gaps: tuple[Gap, ...]
    not_ours: int
    """Processes of other users, which root could read; 0 for root."""
    not_ours_page_table_bytes: int
    """Page tables that these hold; measured."""
    cost: Cost

"""An audit for Prometheus: OpenMetrics that node_exporter's textfile collector reads as well.

That collector knows the older text format, in which UNIT and EOF are comments
(https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.audit.reading import Amount, Audit, ProcessReading, VmReading
from orchestrator.printable import clean
from orchestrator.store.atomic import replace_text

_UNITS: Final = ("bytes", "seconds")


@dataclass
class _Family:
    """A gauge and its samples."""

    name: str
    help: str
    samples: list[str] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        if value is not None:
            named = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            self.samples.append(f"{self.name}{{{named}}} {value}" if named else f"{self.name} {value}")

    def lines(self) -> Iterator[str]:
        if not self.samples:
            return
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} gauge"
        unit = self.name.rpartition("_")[2]
        if unit in _UNITS:
            yield f"# UNIT {self.name} {unit}"
        yield from self.samples


def write_openmetrics(path: Path, audit: Audit, *, top: int) -> None:
    """Put it in the place of `path` in one move: a reader sees the old file or the new one."""
    replace_text(path, exposition(audit, top=top))


def exposition(audit: Audit, *, top: int) -> str:
    """The file as text. Of processes the `top` ones, so that the number of series is bounded; VMs all."""
    families = [*_of_processes(audit.processes[:top]), *_of_vms(audit.vms), *_of_machine(audit)]
    return "".join(f"{line}\n" for family in families for line in family.lines()) + "# EOF\n"


def _of_processes(processes: Sequence[ProcessReading]) -> tuple[_Family, ...]:
    held = _Family("process_page_table_bytes", "Page tables of a process, VmPTE; measured.")
    needed = _Family("process_page_table_needed_bytes", "Page tables that its pages take; predicted.")
    deposited = _Family(
        "process_page_table_deposited_bytes", "Page tables set aside for the split of huge pages; predicted."
    )
    unused = _Family("process_page_table_unused_bytes", "Page tables that map nothing; predicted.")
    resident = _Family(
        "process_page_table_resident_bytes", "Resident memory of the same process, VmRSS; measured."
    )
    for one in processes:
        labels = {"pid": str(one.pid), "comm": one.comm}
        held.add(one.page_table_bytes, **labels)
        needed.add(one.needed.value, **labels)
        deposited.add(one.deposited.value, **labels)
        unused.add(one.unused.value, **labels)
        resident.add(one.resident_bytes, **labels)
    return held, needed, deposited, unused, resident


# What is said of a VM: name behind `kvm_vm_`, field, help.
_VM_AMOUNTS: Final = (
    ("memory_bytes", "memory", "Boot memory and DIMMs of the VM; measured."),
    ("resident_bytes", "resident", "Guest memory present in the VMM; measured."),
    ("huge_bytes", "huge", "Of that, what is in huge pages; measured."),
    ("balloon_bytes", "balloon", "Memory that the balloon leaves the guest; measured."),
    ("virtio_mem_bytes", "virtio_mem", "Memory plugged by virtio-mem; measured."),
    ("virtio_mem_requested_bytes", "virtio_mem_requested", "Memory requested of virtio-mem; measured."),
    ("second_level_page_table_bytes", "second_level_bytes", "Second-level page tables of the VM; measured."),
    (
        "second_level_page_table_needed_bytes",
        "second_level_needed",
        "Those that its memory needs; predicted.",
    ),
    ("memmap_bytes", "memmap", "memmap in the guest for the memory that it has; predicted."),
    ("host_memmap_bytes", "host_memmap", "memmap of the host for what is resident; predicted."),
)


def _of_vms(vms: Sequence[VmReading]) -> list[_Family]:
    amounts = [_Family(f"kvm_vm_{name}", text) for name, _, text in _VM_AMOUNTS]
    leaves = _Family("kvm_vm_leaf_entries", "Leaf entries of second-level tables by page size; measured.")
    own = [
        _Family("kvm_vm_page_table_bytes", "The VMM's own page tables, VmPTE; measured."),
        _Family("kvm_vm_page_table_needed_bytes", "Those that its pages take; predicted."),
        _Family("kvm_vm_page_table_deposited_bytes", "Those set aside for huge pages; predicted."),
        _Family("kvm_vm_page_table_unused_bytes", "Those that map nothing; predicted."),
    ]
    reclaimable = _Family("kvm_vm_reclaimable_bytes", "What a lever would free; predicted.")
    for vm, labels in _named(vms):
        for family, (_, name, _) in zip(amounts, _VM_AMOUNTS, strict=True):
            amount: Amount = getattr(vm, name)
            family.add(amount.value, **labels)
        for size, count in sorted(vm.leaves.items()):
            leaves.add(count, **labels, size=size)
        if tables := vm.page_tables:
            values = (
                tables.page_table_bytes,
                *(one.value for one in (tables.needed, tables.deposited, tables.unused)),
            )
            for family, value in zip(own, values, strict=True):
                family.add(value, **labels)
        for lever in vm.reclaimable:
            reclaimable.add(lever.amount.value, **labels, lever=lever.name)
    return [*amounts, leaves, *own, reclaimable]


def _named(vms: Sequence[VmReading]) -> Iterator[tuple[VmReading, dict[str, str]]]:
    """Each with its labels, which no two share: names of plain processes may be missing, or the same."""
    seen: set[tuple[str, str]] = set()
    for vm in vms:
        domain, uuid = vm.domain or f"{vm.comm}-{vm.pid}", vm.uuid or ""
        if (domain, uuid) in seen:
            domain = f"{domain}-{vm.pid}"
        seen.add((domain, uuid))
        yield vm, {"domain": domain, "uuid": uuid}


def _of_machine(audit: Audit) -> Iterator[_Family]:
    small = _Family(
        "page_table_audit_small_processes_bytes", "Page tables of processes too small to be read; measured."
    )
    small.add(audit.small_page_table_bytes)
    others = _Family(
        "page_table_audit_unread_processes_bytes",
        "Page tables of processes that only root may read; measured.",
    )
    others.add(audit.not_ours_page_table_bytes)
    processes = _Family("page_table_audit_processes", "Processes by how they were read; count.")
    for state, count in (
        ("read", len(audit.processes)),
        ("small", audit.small_processes),
        ("not_permitted", audit.not_ours),
        ("gap", len(audit.gaps)),
    ):
        processes.add(count, state=state)
    cpu = _Family("page_table_audit_cpu_seconds", "CPU time that the last audit took; measured.")
    cpu.add(round(audit.cost.cpu_seconds, 6))
    when = _Family("page_table_audit_timestamp_seconds", "When it was made, in seconds since 1970.")
    when.add(round(audit.when, 3))
    second_level = _Family(
        "kvm_second_level_page_table_bytes", "Second-level page tables of all VMs of the machine; measured."
    )
    second_level.add(next((vm.second_level_of_machine.value for vm in audit.vms), None))
    yield from (small, others, processes, cpu, when, second_level)


def _escaped(text: str) -> str:
    # clean() takes newlines out, so the format asks for these two only.
    return clean(text).replace("\\", r"\\").replace('"', r"\"")

"""The VMs of a machine as they run, whoever started them. Read only: nothing is asked of their monitors."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from orchestrator.audit.process import read_process
from orchestrator.audit.reading import Amount, Gap, Lever, ProcessReading, VmReading
from orchestrator.audit.vm_levers import collapse, flush, reclaimable, slot, unused
from orchestrator.audit.vm_process import VmProcess, VmProcesses, find_processes
from orchestrator.audit.vm_ram import VmRam, read_ram
from orchestrator.audit.vm_tables import HostTables, held, leaves_of, read_host
from orchestrator.deadline import Deadline
from orchestrator.host.domain_memory import MOST_XML_BYTES, DomainMemory, read_domain
from orchestrator.host.libvirt_domains import DomainReader
from orchestrator.host.remote import HostLostError
from orchestrator.host.shell import HostShell
from orchestrator.host.vmm import QEMU
from orchestrator.observation import NO_SECOND_LEVEL
from orchestrator.printable import clean

_SYSTEM, _SYSTEM_STATE = "qemu:///system", "/run/libvirt/qemu"
_LIBVIRT_SECONDS = 5.0
_MEMMAP_SHARE = 64  # a struct page of 64 bytes for each 4,096 (include/linux/mm_types.h)

_NO_DEVICE = "it has no such device"
_NOT_ROOT = "another user's VM: root sees more"
_NO_FILE = "its libvirt is another process's own, and the file that it keeps of it cannot be read"
_NO_MONITOR = "only its own monitor tells, and that is left alone"
_NO_SCAN = "its kernel does not tell huge pages from others (Linux 6.7 does, by PAGEMAP_SCAN)"
_DEVICES = "without the tables of devices, a handful"


def find_vms(shell: HostShell, connection: str | None, deadline: Deadline) -> Sequence[VmReading]:
    """All VMs of a machine, by process id. `connection` is the URI of its libvirt, if not its system's.

    A VM that ends meanwhile is left out. Raises HostLostError.
    """
    processes = find_processes(shell, deadline.remaining)
    domains, why = _domains(shell, connection, processes.found, deadline)
    machine = _Machine(shell, processes, read_host(shell, processes.found), domains, why, deadline)
    found = (_read(machine, one) for one in processes.found)
    return tuple(one for one in found if one is not None)


@dataclass(frozen=True)
class _Machine:
    """What is known of a machine before any of its VMs is read."""

    shell: HostShell
    processes: VmProcesses
    tables: HostTables
    domains: Sequence[DomainMemory]
    """Of its system's libvirt."""
    why: str
    """Why it reports none."""
    deadline: Deadline


def _read(machine: _Machine, process: VmProcess) -> VmReading | None:
    """One VM; None if it has ended."""
    command = process.command
    domain = _domain(machine, process)
    own = read_process(machine.shell, process.pid, machine.deadline)
    if isinstance(own, ProcessReading) and own.started_ticks != process.ticks:
        return None
    ram, why_not = _ram(machine, process, domain)
    if ram is None and not machine.shell.texts(f"/proc/{process.pid}/status"):
        return None
    tables = held(process, machine.processes, machine.tables)
    needed = _needed(process, ram, why_not)
    leaves, no_leaves = leaves_of(process, machine.tables)
    memory = _memory(process, domain)
    plugged, requested = _virtio_mem(process, domain, machine.why)
    resident = _resident(ram, own, why_not)
    levers = [*_levers(process, reclaimable(tables, needed), machine.tables, ram, domain)]
    if isinstance(own, ProcessReading):
        levers.append(unused(own))
    return VmReading(
        pid=process.pid,
        comm=process.comm,
        vmm=clean(command.vmm),
        accelerator=process.accelerator,
        domain=clean(domain.name if domain else command.name) or None,
        uuid=clean(domain.uuid if domain else command.uuid) or None,
        memory=memory,
        resident=resident,
        balloon=_balloon(process, domain, machine.why),
        virtio_mem=plugged,
        virtio_mem_requested=requested,
        second_level_bytes=tables,
        second_level_needed=needed,
        second_level_of_machine=machine.tables.total,
        leaves=leaves,
        leaves_reason=no_leaves,
        page_tables=own if isinstance(own, ProcessReading) else None,
        page_tables_reason=own.reason if isinstance(own, Gap) else "",
        memmap=_memmap(memory, plugged),
        host_memmap=_memmap(resident, Amount.missing(_NO_DEVICE)),
        huge=Amount.missing(why_not) if ram is None else Amount(ram.huge_present),
        reclaimable=tuple(levers),
    )


def _domains(
    shell: HostShell, connection: str | None, processes: Iterable[VmProcess], deadline: Deadline
) -> tuple[Sequence[DomainMemory], str]:
    """What the system's libvirt says, and why it says nothing.

    It is asked only if it runs a VM: else a socket of systemd's might start it.
    """
    if not any(one.command.state_folder == _SYSTEM_STATE for one in processes):
        return (), ""
    uri = shell.target.libvirt_uri() if shell.target else connection or _SYSTEM
    return _reader(uri).read(deadline.sooner(_LIBVIRT_SECONDS))


@cache  # one that hangs is not asked again (DomainReader)
def _reader(uri: str) -> DomainReader:
    return DomainReader(uri)


def _domain(machine: _Machine, process: VmProcess) -> DomainMemory | None:
    """What libvirt says of a process's domain: asked, or as it last wrote it down for itself.

    An embedded libvirt, or that of a session, is another process's and can only be read.
    """
    command = process.command
    if command.vmm != QEMU:
        return None
    for one in machine.domains:
        if one.name == command.name and one.uuid == command.uuid.lower():
            return one
    for path in command.status_files:
        try:
            written = read_domain(machine.shell.regular_text(path, MOST_XML_BYTES))
        except HostLostError:
            raise
        except OSError:
            continue
        if written is not None and written.pid == process.pid:
            return written
    return None


def _ram(machine: _Machine, process: VmProcess, domain: DomainMemory | None) -> tuple[VmRam | None, str]:
    """What is present of its RAM, and else why that is not known."""
    command = process.command
    blocks = command.blocks
    if domain is not None:
        blocks = (*command.initial, *domain.dimms, *(one.maximum for one in domain.virtio_mem))
    try:
        return read_ram(machine.shell, process, blocks, machine.deadline), ""
    except HostLostError:
        raise
    except OSError as error:
        reasons = {errno.EACCES: _NOT_ROOT, errno.EPERM: _NOT_ROOT, errno.ENOTTY: _NO_SCAN}
        return None, reasons.get(error.errno or 0, error.strerror or str(error))


def _needed(process: VmProcess, ram: VmRam | None, why_not: str) -> Amount:
    if process.accelerator not in {"kvm", "unknown"}:
        return Amount.missing(NO_SECOND_LEVEL)
    if ram is None:
        return Amount.missing(why_not)
    basis = _DEVICES if ram.exact else f"at most: which mappings are its RAM is not known of {process.comm}"
    return Amount(ram.needed, basis)


def _resident(ram: VmRam | None, own: ProcessReading | Gap, why_not: str) -> Amount:
    if ram is not None:
        return Amount(ram.present, "" if ram.exact else "at most: with other memory of its program")
    if isinstance(own, ProcessReading):
        total = own.resident_bytes + own.hugetlb_bytes
        return Amount(total, "at most: with other memory of its program")
    return Amount.missing(why_not)


def _memory(process: VmProcess, domain: DomainMemory | None) -> Amount:
    if domain is not None:
        return Amount(domain.boot + sum(domain.dimms))
    if process.command.memory is None:
        return Amount.missing("its command line does not say: it was set by API")
    return Amount(process.command.memory, "by its command line: what was plugged since is not known")


def _balloon(process: VmProcess, domain: DomainMemory | None, why: str) -> Amount:
    if domain is None:
        return Amount.missing(_unknown(process, why))
    return Amount.missing(_NO_DEVICE) if domain.balloon is None else Amount(domain.balloon)


def _virtio_mem(process: VmProcess, domain: DomainMemory | None, why: str) -> tuple[Amount, Amount]:
    """What is plugged, and what was requested."""
    if domain is None:
        missing = Amount.missing(_unknown(process, why) if process.command.virtio_mem else _NO_DEVICE)
        return missing, missing
    if not domain.virtio_mem:
        return Amount.missing(_NO_DEVICE), Amount.missing(_NO_DEVICE)
    return (
        Amount(sum(one.size for one in domain.virtio_mem)),
        Amount(sum(one.requested for one in domain.virtio_mem)),
    )


def _unknown(process: VmProcess, why: str) -> str:
    """Why what libvirt would say is not known."""
    if process.command.state_folder == _SYSTEM_STATE:
        return clean(why, 300) or "the system's libvirt does not know it"
    return _NO_FILE if process.command.state_folder else _NO_MONITOR


def _memmap(memory: Amount, plugged: Amount) -> Amount:
    if memory.value is None:
        return Amount.missing(memory.reason)
    if plugged.value is None and plugged.reason != _NO_DEVICE:
        return Amount(memory.value // _MEMMAP_SHARE, "without that of virtio-mem, whose size is not known")
    return Amount((memory.value + (plugged.value or 0)) // _MEMMAP_SHARE, memory.reason)


def _levers(
    process: VmProcess, tables: Amount, host: HostTables, ram: VmRam | None, domain: DomainMemory | None
) -> Iterable[Lever]:
    """Those of second-level tables, of which `tables` bytes are not needed."""
    if process.accelerator == "kvm":
        yield flush(tables, host, domain)
        yield slot(tables, domain)
        if ram is not None:
            yield collapse(ram, domain)

"""A whole machine: its VMs, then its processes."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias

from orchestrator.audit.diagnoses import DIAGNOSES, Kernel
from orchestrator.audit.process import ANOTHER_USERS, Listed, list_processes, read_listed
from orchestrator.audit.reading import Advice, Audit, Cost, Gap, ProcessReading, VmReading
from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.host.shell import HostShell
from orchestrator.printable import clean
from orchestrator.procfs import may_trace, of_first_processor
from orchestrator.suggestion import suggest
from orchestrator.units import KIB

FindVms: TypeAlias = Callable[[HostShell, str | None, Deadline], Sequence[VmReading]]
"""The VMs of a machine: its shell, the libvirt URI that --connect named or None, and until when."""

MIN_BYTES: Final = 64 * KIB
"""Processes whose page tables are smaller are counted, not read page by page."""
_MOST_CONFIG = 1 << 20
_RELEASE, _NAME, _CPUINFO = "/proc/sys/kernel/osrelease", "/proc/sys/kernel/hostname", "/proc/cpuinfo"
_SELF = "/proc/self/status"  # of the reader
_PT_RECLAIM = re.compile(r"^CONFIG_PT_RECLAIM=y$", re.MULTILINE)


def no_vms(_shell: HostShell, _connection: str | None, _deadline: Deadline) -> Sequence[VmReading]:
    """What is used where nobody looks for VMs."""
    return ()


def audit(
    shell: HostShell,
    *,
    deadline: Deadline,
    connection: str | None = None,
    find_vms: FindVms = no_vms,
    pids: Collection[int] = (),
    names: Collection[str] = (),
    domains: Collection[str] = (),
    min_bytes: int = MIN_BYTES,
    progress: Callable[[str], object] = lambda _words: None,
) -> Audit:
    """Read it. With `pids`, `names` or `domains` only these, whatever their size.

    Raises HostLostError; BadInputError when one of those does not run; InfrastructureError on other than
    x86-64.
    """
    before = shell.cpu_seconds()
    facts = shell.texts(_RELEASE, _NAME, _CPUINFO, _SELF)
    flags = of_first_processor(facts.get(_CPUINFO, ""), "flags").split()
    if "lm" not in flags:
        raise InfrastructureError(f"{shell.name} is no x86-64: its page tables are not known to audit")
    kernel = Kernel(
        clean(facts.get(_RELEASE, "unknown").strip()), _pt_reclaim(shell, facts.get(_RELEASE, ""))
    )
    chosen = bool(pids or names or domains)
    vms: tuple[VmReading, ...] = ()
    if domains or not chosen:
        progress("looking for VMs")
        vms = tuple(find_vms(shell, connection, deadline))
    if chosen:
        vms = _chosen_vms(vms, domains)
        min_bytes = 0
    of_vms = {vm.pid for vm in vms}
    listed = [one for one in list_processes(shell) if one.pid not in of_vms]
    if chosen:
        listed = _chosen(listed, pids, names)
    large = sorted(
        (one for one in listed if one.page_table_bytes >= min_bytes), key=lambda one: -one.page_table_bytes
    )
    small = [one for one in listed if one.page_table_bytes < min_bytes]
    processes: list[ProcessReading] = []
    gaps: list[Gap] = []
    denied = not_ours_bytes = 0
    not_root = not may_trace(facts.get(_SELF, ""))
    for number, one in enumerate(large, 1):
        progress(f"reading process {number} of {len(large)}")
        found = read_listed(shell, one, deadline, five_levels="la57" in flags)
        if isinstance(found, ProcessReading):
            processes.append(found)
        elif found.reason == ANOTHER_USERS and not chosen and not_root:
            denied += 1
            not_ours_bytes += one.page_table_bytes
        else:
            gaps.append(found)
    everything = [*processes, *(vm.page_tables for vm in vms if vm.page_tables)]
    return Audit(
        machine=clean(facts.get(_NAME, "").strip()) or shell.name,
        when=time.time(),
        kernel=kernel.release,
        pt_reclaim=kernel.pt_reclaim,
        vms=vms,
        processes=tuple(processes),
        small_processes=len(small),
        small_page_table_bytes=sum(one.page_table_bytes for one in small),
        advice=_advice(everything, kernel),
        gaps=tuple(gaps),
        not_ours=denied,
        not_ours_page_table_bytes=not_ours_bytes,
        cost=Cost(
            cpu_seconds=shell.cpu_seconds() - before,
            mapped_bytes=sum(
                one.resident_bytes + one.hugetlb_bytes + one.swapped_bytes for one in everything
            ),
            longest_call_seconds=max((one.longest_call_seconds for one in everything), default=0.0),
        ),
    )


def _chosen(listed: Sequence[Listed], pids: Collection[int], names: Collection[str]) -> list[Listed]:
    # The kernel keeps 15 characters of a name (TASK_COMM_LEN, include/linux/sched.h).
    short = {name[:15] for name in names}
    found = [one for one in listed if one.pid in pids or one.status.comm in short]
    missing = sorted(set(pids) - {one.pid for one in found})
    if missing:
        raise BadInputError(f"there is no process {missing[0]} with memory of its own", hint="ps -e")
    missing_names = sorted(short - {one.status.comm for one in found})
    if missing_names:
        raise BadInputError(f"no process is called {missing_names[0]!r}", hint="ps -e -o comm=")
    return found


def _chosen_vms(vms: Sequence[VmReading], domains: Collection[str]) -> tuple[VmReading, ...]:
    named = {name: vm for vm in vms for name in (vm.domain, vm.uuid) if name}
    for domain in domains:
        if domain not in named:
            raise BadInputError(f"no running VM is called {domain!r}", hint=suggest(domain, sorted(named)))
    return tuple(vm for vm in vms if {vm.domain, vm.uuid} & set(domains))


def _advice(processes: Sequence[ProcessReading], kernel: Kernel) -> tuple[Advice, ...]:
    found = [advice for _, diagnosis in DIAGNOSES for advice in diagnosis.find(processes, kernel)]
    return tuple(sorted(found, key=lambda one: -one.amount))


def _pt_reclaim(shell: HostShell, release: str) -> bool | None:
    """Whether the kernel was built with CONFIG_PT_RECLAIM; None where its configuration is not to be read."""
    try:
        packed = shell.tail("/proc/config.gz", 0, _MOST_CONFIG)
        raw = zlib.decompressobj(wbits=31).decompress(packed, _MOST_CONFIG)
    except (OSError, zlib.error):
        try:
            raw = shell.tail(f"/boot/config-{release.strip()}", 0, _MOST_CONFIG)
        except OSError:
            return None
    text = raw.decode(errors="replace")
    return bool(_PT_RECLAIM.search(text)) if "CONFIG_MMU" in text else None

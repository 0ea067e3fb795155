"""The page tables of processes, read from outside."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.audit.reading import Amount, Gap, Levels, ProcessReading, SharedMemory
from orchestrator.deadline import Deadline
from orchestrator.host.shell import HostShell
from orchestrator.printable import clean
from orchestrator.procfs import ProcessStatus, kib_lines, process_status, system_unit
from orchestrator.units import PAGE_BYTES, format_size

ANOTHER_USERS: Final = "the kernel refuses: it is another user's, or protected, or about to end"
ENDED: Final = "it ended while it was read"
_PID = re.compile(r"/proc/([0-9]{1,10})/status")
_NO_HUGE = "the kernel does not tell huge pages (Linux 6.7 does, by PAGEMAP_SCAN): counted as needed"
_NO_ZERO = "the kernel does not tell zero pages (Linux 6.7 does, by PAGEMAP_SCAN)"


@dataclass(frozen=True)
class Listed:
    """A process with memory of its own, as /proc lists it."""

    pid: int
    status: ProcessStatus

    @property
    def page_table_bytes(self) -> int:
        """VmPTE."""
        return self.status.sizes["VmPTE"]


class _Tables(BaseModel):
    """What the reader found (`orchestrator.host.page_tables`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    started: int
    before: str = Field(max_length=1 << 16)
    after: str = Field(max_length=1 << 16)
    cgroup: str = Field(max_length=1 << 16)
    tables: tuple[int, int, int, int]
    deposited: int = Field(ge=0)
    zero_only: int = Field(ge=0)
    sparse: int = Field(ge=0)
    unseen: int = Field(ge=0)
    scanned: bool
    shared: list[tuple[str, str, int]] = Field(max_length=1000)
    libraries: list[str] = Field(max_length=100)
    cpu_seconds: float = Field(ge=0)
    longest_seconds: float = Field(ge=0)


def list_processes(shell: HostShell, pid: int | None = None) -> list[Listed]:
    """All processes that have memory, or the one; no kernel threads, no zombies."""
    which = "[0-9]*" if pid is None else str(pid)
    texts = shell.texts(f"/proc/{which}/stat", f"/proc/{which}/status")
    found = []
    for path, status in texts.items():
        number = _PID.fullmatch(path)
        one = process_status(texts.get(f"/proc/{number[1]}/stat", ""), status) if number else None
        if number and one and not one.ended and "VmPTE" in one.sizes:
            found.append(Listed(int(number[1]), one))
    return found


def read_process(
    shell: HostShell, pid: int, deadline: Deadline, *, five_levels: bool = False
) -> ProcessReading | Gap:
    """Read it. A process that ends, changes or is another user's is a gap; HostLostError passes."""
    listed = list_processes(shell, pid)
    if not listed:
        return Gap(pid, "", "there is no such process, or it has no memory")
    return read_listed(shell, listed[0], deadline, five_levels=five_levels)


def read_listed(
    shell: HostShell, listed: Listed, deadline: Deadline, *, five_levels: bool = False
) -> ProcessReading | Gap:
    """The same, of a process that was listed: if another has its id by now, that is a gap."""
    try:
        found = _Tables.model_validate(shell.page_tables(listed.pid, deadline.remaining))
    except OSError as error:
        return Gap(listed.pid, listed.status.comm, _reason(error))
    if found.started != listed.status.started_ticks:
        return Gap(listed.pid, listed.status.comm, ENDED)
    return _reading(listed, found, five_levels=five_levels)


def _reason(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ANOTHER_USERS
    if error.errno in {errno.ESRCH, errno.ENOENT}:
        return ENDED
    return clean(error.strerror or error)


def _reading(listed: Listed, found: _Tables, *, five_levels: bool) -> ProcessReading:
    before, sizes = kib_lines(found.before), kib_lines(found.after)
    held = sizes.get("VmPTE", 0)
    pte, pmd, pud, p4d = found.tables
    needed = (pte + pmd + pud) * PAGE_BYTES
    deposited = found.deposited * PAGE_BYTES
    most_unseen = found.unseen * PAGE_BYTES
    reasons = []
    if most_unseen:
        reasons.append(f"at least: up to {format_size(most_unseen)} more may be of mappings of devices")
    left = held - needed - deposited - most_unseen
    if before.get("VmPTE") != held:
        reasons.append(
            f"it changed meanwhile: {format_size(before.get('VmPTE', 0))} before, {format_size(held)} after"
        )
    elif left < 0 and not most_unseen:
        reasons.append(f"it changed meanwhile: {format_size(-left)} more are needed than held")
    return ProcessReading(
        pid=listed.pid,
        started_ticks=found.started,
        comm=listed.status.comm,
        user=listed.status.user,
        unit=system_unit(found.cgroup),
        virtual_bytes=sizes.get("VmSize", 0),
        resident_bytes=sizes.get("VmRSS", 0),
        swapped_bytes=sizes.get("VmSwap", 0),
        hugetlb_bytes=sizes.get("HugetlbPages", 0),
        page_table_bytes=held,
        needed=Amount(needed, "" if found.scanned else "with deposited tables"),
        deposited=Amount(deposited) if found.scanned else Amount.missing(_NO_HUGE),
        unused=Amount(max(0, left), "; ".join(reasons)),
        zero_only=Amount(found.zero_only * PAGE_BYTES) if found.scanned else Amount.missing(_NO_ZERO),
        sparse=Amount(found.sparse * PAGE_BYTES),
        levels=Levels(pte, pmd, pud, p4d if five_levels else 0),
        shared=tuple(SharedMemory(*one) for one in found.shared),
        libraries=tuple(found.libraries),
        cpu_seconds=found.cpu_seconds,
        longest_call_seconds=found.longest_seconds,
    )

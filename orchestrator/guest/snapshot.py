"""Takes a `Snapshot` of a running guest: frame flags from inside, all else from outside."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from orchestrator.errors import GuestLostError
from orchestrator.guest.boot import Guest
from orchestrator.guest.evidence import RawEvidence, find_deposits, find_evidence, memory_map, read_evidence
from orchestrator.guest.kernel_tables import NotFoundError, ReadFrames, VmcoreInfo, parse_vmcoreinfo
from orchestrator.guest.page_owner import MOST_ASKED
from orchestrator.guest.sampler import PROGRAM
from orchestrator.guest.shell import close
from orchestrator.guest.snapshot_probe import (
    BLOCK_BYTES,
    FILES,
    RELEASE,
    VMCOREINFO,
    ZONEINFO,
    CpuUsed,
    SnapshotError,
    SnapshotProbe,
)
from orchestrator.guest.stream import StreamError
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import physical_end, ram_segments, read_frames
from orchestrator.model.frame_class import FrameClass
from orchestrator.model.frames import KPF_PGTABLE, KPF_ZERO_PAGE, classify_flags, flag_set
from orchestrator.model.kernel_free import KernelFree
from orchestrator.model.second_level_counts import SecondLevelCounts
from orchestrator.model.second_level_tree import (
    ACCESSED,
    decode_tree,
    has_blank_entries,
    looks_like_table,
)
from orchestrator.model.snapshot import I64, U8, U64, Evidence, Region, Snapshot
from orchestrator.units import PAGE_BYTES

READ_SECONDS = 120.0
_ZONE = re.compile(r"Node \d{1,4}, zone +(\w{1,16})")
_CPU_LIST = re.compile(r" +count: +(\d{1,12})$")
_HEXADECIMAL = re.compile(r"[0-9a-f]{1,12}")
_NOTE_PLACE = re.compile(r"0x([0-9a-f]{1,16}) ([0-9a-f]{1,8})")
_MOST_NOTE_BYTES = 1 << 16


class SnapshotTaker:
    """Takes snapshots of one guest. Its program runs in the guest from `__enter__` to `__exit__`."""

    def __init__(self, guest: Guest, machine: Machine, second_level: str = "") -> None:
        """`second_level`: EPT or NPT, if the guest is a KVM host whose tables are to be found as well; with
        `none` there are none."""
        self._guest = guest
        self._second_level = second_level if second_level in ACCESSED else ""
        self._machine = machine
        self._channel: Any = None  # paramiko.Channel
        self._cpu: CpuUsed | None = None  # after the last snapshot
        self._has_owner = False

    def __enter__(self) -> Self:
        self._channel = self._guest.shell.stream([PROGRAM, "snapshot", *FILES])
        self._channel.settimeout(READ_SECONDS)
        self._probe = SnapshotProbe(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        close(self._channel)

    def _second_level_tables(self, outside: _Outside, flags: U64, evidence: U8) -> dict[str, str]:
        """Marks the frames of second-level tables in `evidence`; counts of them, as a note."""
        if outside.second_level is None or not len(evidence):
            return {}
        pfn, contents = outside.second_level
        # What waits on a per-CPU list may have been one until a moment ago.
        in_use = evidence[pfn] == Evidence.NONE
        pfn, contents = pfn[in_use], contents[in_use]
        if not has_blank_entries(contents):
            return {}
        zero_pages = np.flatnonzero(flag_set(flags, KPF_ZERO_PAGE)).astype(np.int64)
        tree = decode_tree(pfn, contents, zero_pages, self._second_level)
        evidence[pfn[tree.linked]] = Evidence.SECOND_LEVEL
        return {"second_level": SecondLevelCounts.of(tree).to_json()}

    def take(self, label: str) -> Snapshot:
        """Read the flags of all frames, then page tables and struct pages.

        The flags are read by the guest itself while it runs; the rest from outside with its vCPUs stopped,
        and then the flags once more, so that `frames_changed` says how much changed during the read. Raises
        SnapshotError, GuestLostError, InfrastructureError.
        """
        import paramiko

        began = time.monotonic()
        most_frames = physical_end(self._machine) // PAGE_BYTES
        probe = self._probe
        try:
            if self._cpu is None:
                self._cpu, self._has_owner = probe.start()
            cpu = self._cpu
            probe.ask("all")
            # What exists comes first: a memory block added later has no flags in the reading, but one
            # removed later would have flags that mean nothing.
            files, online = probe.files(), probe.online_blocks()
            flags, _ = probe.flags(most_frames)
            outside = _read_outside(
                self._guest,
                self._machine,
                flags,
                files[VMCOREINFO],
                with_second_level=bool(self._second_level),
            )
            raw, owners = outside.evidence, "this kernel has none"
            evidence = find_evidence(raw, flags) if raw else np.empty(0, dtype=np.uint8)
            second_level = self._second_level_tables(outside, flags, evidence)
            if self._has_owner:
                evidence, owners = _with_owners(probe, flags, evidence)
            probe.ask("flags")
            later, self._cpu = probe.flags(most_frames)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestLostError("the ssh connection to the guest broke", details=str(error)) from error
        except StreamError as error:
            raise SnapshotError("guest-probe gave no snapshot", details=str(error)) from error
        size = files[BLOCK_BYTES].strip()
        if not _HEXADECIMAL.fullmatch(size):
            raise SnapshotError("the guest's memory block size makes no sense", details=size[:80])
        common = min(len(flags), len(later))
        frames_changed = int(np.count_nonzero(flags[:common] != later[:common]))
        memmap = memory_map(raw, len(flags))
        kernel_free = KernelFree.of_zoneinfo(files[ZONEINFO])
        table, slot = np.nonzero(outside.contents)
        ends = np.cumsum(np.bincount(table, minlength=len(outside.tables)))
        entries = outside.contents[table, slot]
        deposits = find_deposits(raw, flags, outside.tables, entries)
        snapshot = Snapshot(
            label=label,
            kernel=files[RELEASE].strip()[:64],
            flags=flags,
            table_pfn=outside.tables,
            entry_start=np.concatenate([[0], ends]).astype(np.int64),
            entry_slot=slot.astype(np.uint16),
            entry_value=entries,
            regions=_regions(self._guest, int(size, 16)),
            online_block_bytes=int(size, 16),
            online_blocks=online,
            paused=False,
            frames_changed=frames_changed + abs(len(flags) - len(later)),
            tables_unread=outside.tables_unread,
            notes={
                **_cost(cpu, self._cpu, outside.stopped_seconds, time.monotonic() - began),
                "pages_on_cpu_lists": pages_on_cpu_lists(files[ZONEINFO]),
                **(kernel_free.note() if kernel_free else {}),
                "evidence": outside.why_not or "struct pages and kernel page tables, read from outside",
                "page_owner": owners,
                "deposited": f"{len(deposits.pfn)} tables, {deposits.huge_mappings} huge anonymous mappings",
                **second_level,
            },
            deposited_pfn=deposits.pfn,
            deposited_below=deposits.below,
            deposits_read=deposits.read,
            evidence=evidence,
            memmap_pfn=memmap.pfn,
            memmap_first=memmap.first,
            memmap_frames=memmap.frames,
        )
        faults = snapshot.faults()
        if faults:
            raise SnapshotError("what the guest says of its memory makes no sense", details="\n".join(faults))
        return snapshot


def _tables_among(found: tuple[I64, U64]) -> tuple[I64, U64]:
    pfn, contents = found
    tables = looks_like_table(contents)
    return pfn[tables], contents[tables]


def _with_owners(probe: SnapshotProbe, flags: U64, evidence: U8) -> tuple[U8, str]:
    """Evidence, with page_owner's where nothing else tells what a frame is; and what is to be noted of it."""
    evidence = evidence.copy() if len(evidence) else np.zeros(len(flags), dtype=np.uint8)
    silent = (classify_flags(flags) == FrameClass.KERNEL) & (evidence == Evidence.NONE)
    asked = np.flatnonzero(silent)[:MOST_ASKED].astype("<u8")
    owners = probe.owners(asked)
    of_owners = owners.evidence(len(flags))
    evidence[silent] = of_owners[silent]
    left = int(silent.sum()) - len(asked)
    more = f"; {left} frames not asked for" if left else ""
    more += "; the kernel broke off" if owners.cut else ""
    return (
        evidence,
        f"asked for {len(asked)} frames; of what it does not tell, most: {owners.callers()}{more}",
    )


def _cost(before: CpuUsed, after: CpuUsed, stopped_seconds: float, seconds: float) -> dict[str, str]:
    """What the snapshot cost the guest, as notes. CPU times are the guest's own, of all its vCPUs."""
    probe = after.probe_seconds - before.probe_seconds
    flags = after.flags_seconds - before.flags_seconds
    return {
        "flags": "read by the running guest, twice",
        "contents": "read from outside with the vCPUs stopped",
        "seconds": f"{seconds:.3f}",
        "stopped_seconds": f"{stopped_seconds:.3f}",
        "guest_cpu_seconds_for_flags": f"{flags:.3f}",
        "guest_cpu_seconds_for_the_rest": f"{probe - flags:.4f}",
        "guest_cpu_seconds_for_sending": f"{after.sshd_seconds - before.sshd_seconds:.4f}",
    }


@dataclass(frozen=True)
class _Outside:
    """What was read from QEMU's memory while the vCPUs stood still."""

    tables: I64
    contents: U64
    tables_unread: int
    evidence: RawEvidence | None
    why_not: str
    stopped_seconds: float
    second_level: tuple[I64, U64] | None


def _read_outside(
    guest: Guest, machine: Machine, flags: U64, vmcoreinfo: str, *, with_second_level: bool
) -> _Outside:
    domain = guest.domain
    segments = ram_segments(domain, machine)

    def read(pfns: I64) -> tuple[I64, U64]:
        return read_frames(domain.qemu, segments, pfns)

    layout, why_not = _layout(read, vmcoreinfo)
    raw: RawEvidence | None = None
    second_level: tuple[I64, U64] | None = None
    silent = np.flatnonzero(classify_flags(flags) == FrameClass.KERNEL).astype(np.int64)
    began = time.monotonic()
    domain.suspend()
    try:
        if layout:
            try:
                raw = read_evidence(read, layout, flags)
            except NotFoundError as reason:
                why_not = f"not read: {reason}"
        wanted = np.flatnonzero(flag_set(flags, KPF_PGTABLE)).astype(np.int64)
        if raw:
            wanted = np.union1d(wanted, raw.tables[raw.tables < len(flags)])
        tables, contents = read(wanted)
        if raw and with_second_level:
            parts = np.array_split(np.setdiff1d(silent, raw.memmap), max(1, len(silent) >> 14))
            found = [_tables_among(read(part)) for part in parts]
            second_level = (
                np.concatenate([pfn for pfn, _ in found]),
                np.concatenate([words for _, words in found]),
            )
    finally:
        domain.resume()
        stopped_seconds = time.monotonic() - began
    return _Outside(tables, contents, len(wanted) - len(tables), raw, why_not, stopped_seconds, second_level)


def _layout(read: ReadFrames, place: str) -> tuple[VmcoreInfo | None, str]:
    """What VMCOREINFO says, which lies at the physical address that the guest names; or why not."""
    found = _NOTE_PLACE.fullmatch(place.strip())
    if not found:
        return None, f"not read: the guest has no {VMCOREINFO}"
    address, size = int(found[1], 16), int(found[2], 16)
    first, last = address // PAGE_BYTES, (address + min(size, _MOST_NOTE_BYTES) - 1) // PAGE_BYTES
    wanted = np.arange(first, last + 1, dtype=np.int64)
    frames, contents = read(wanted)
    if len(frames) != len(wanted):
        return None, "not read: QEMU has no page where the guest says that VMCOREINFO is"
    try:
        return parse_vmcoreinfo(contents.tobytes()[address % PAGE_BYTES :][:size]), ""
    except NotFoundError as reason:
        return None, f"not read: {reason}"


def _regions(guest: Guest, online_block_bytes: int) -> tuple[Region, ...]:
    """The devices by which memory can be unplugged, in the units in which it is."""
    device = guest.domain.virtio_mem()
    regions = []
    if device:
        regions.append(
            Region(
                name="virtio-mem0",
                start_pfn=device.address // PAGE_BYTES,
                pages=device.maximum // PAGE_BYTES,
                block_pages=device.block // PAGE_BYTES,
                plugged_bytes=device.size,
            )
        )
    # A DIMM goes as a whole; what the guest takes offline for it is one Linux memory block after the other.
    regions += [
        Region(
            name=f"dimm{dimm.slot}",
            start_pfn=dimm.address // PAGE_BYTES,
            pages=dimm.size // PAGE_BYTES,
            block_pages=min(online_block_bytes, dimm.size) // PAGE_BYTES,
            plugged_bytes=dimm.size,
        )
        for dimm in guest.domain.dimms()
    ]
    return tuple(regions)


def pages_on_cpu_lists(zoneinfo: str) -> str:
    """Free pages that wait on per-CPU lists, by zone: `DMA32 7344, Normal 818`.

    They carry no flag, so a snapshot cannot tell them from kernel allocations (mm/page_alloc.c,
    free_frozen_page_commit()); this says how many there are at the most.
    """
    pages: dict[str, int] = {}
    zone = ""
    for line in zoneinfo.splitlines():
        if found := _ZONE.match(line):
            zone = found[1]
        elif found := _CPU_LIST.match(line):
            pages[zone] = pages.get(zone, 0) + int(found[1])
    return ", ".join(f"{name} {count}" for name, count in pages.items() if count)

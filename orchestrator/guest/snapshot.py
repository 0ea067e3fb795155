"""Takes a `Snapshot` of a running guest: frame flags from inside, page-table pages from outside."""

from __future__ import annotations

import re

import numpy as np

from orchestrator.errors import GuestError
from orchestrator.guest.boot import Guest
from orchestrator.guest.sampler import PROGRAM
from orchestrator.host.machine import Machine
from orchestrator.host.qemu_process import physical_end, ram_segments, read_frames
from orchestrator.model.frames import KPF_PGTABLE, flag_set
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.units import PAGE_BYTES

READ_SECONDS = 120.0
_ZONE = re.compile(r"Node \d{1,4}, zone +(\w{1,16})")
_CPU_LIST = re.compile(r" +count: +(\d{1,12})$")
_BLOCK_SIZE = re.compile(r"[0-9a-f]{1,12}")
_MEMORY_BLOCK = re.compile(r"/sys/devices/system/memory/memory(\d{1,9})/online:1")


class SnapshotError(GuestError):
    """The guest's readings contradict themselves or its machine."""

    outcome = "snapshot-failed"


def take_snapshot(guest: Guest, machine: Machine, label: str) -> Snapshot:
    """Read the flags of all frames, then the contents of all page-table pages.

    The flags are read by the guest itself while it runs; the contents with its vCPUs stopped, and
    then the flags once more, so that `moved` says how much changed meanwhile.
    """
    # What exists comes first: a memory block added later has no flags in the reading, but one
    # removed later would have flags that mean nothing.
    shell, domain = guest.shell, guest.domain
    kernel = shell.run(["uname", "-r"], seconds=READ_SECONDS).text.strip()[:64]
    size = shell.run(
        ["cat", "/sys/devices/system/memory/block_size_bytes"], seconds=READ_SECONDS
    ).text.strip()
    if not _BLOCK_SIZE.fullmatch(size):
        raise SnapshotError("the guest's memory block size makes no sense", details=size[:80])
    listed = shell.run(
        ["sh", "-c", "grep -H . /sys/devices/system/memory/memory*/online"], seconds=READ_SECONDS
    ).text
    device = domain.virtio_mem()
    top = physical_end(machine)
    flags = _page_flags(guest, top // PAGE_BYTES)
    zones = shell.run(["cat", "/proc/zoneinfo"], seconds=READ_SECONDS).text
    domain.suspend()
    try:
        tables = np.flatnonzero(flag_set(flags, KPF_PGTABLE)).astype(np.int64)
        read, contents = read_frames(domain.pid, ram_segments(domain, machine), tables)
    finally:
        domain.resume()
    again = _page_flags(guest, top // PAGE_BYTES)
    common = min(len(flags), len(again))
    table, slot = np.nonzero(contents)
    start = np.concatenate([[0], np.cumsum(np.bincount(table, minlength=len(read)))]).astype(np.int64)
    regions: tuple[Region, ...] = ()
    if device:
        regions = (
            Region(
                name="virtio-mem0",
                start_pfn=device.address // PAGE_BYTES,
                pages=device.maximum // PAGE_BYTES,
                block_pages=device.block // PAGE_BYTES,
                plugged_bytes=device.size,
            ),
        )
    snapshot = Snapshot(
        label=label,
        kernel=kernel,
        flags=flags,
        table_pfn=read,
        entry_start=start,
        entry_slot=slot.astype(np.uint16),
        entry_value=contents[table, slot],
        regions=regions,
        online_block_bytes=int(size, 16),
        online_blocks=np.array(sorted(map(int, _MEMORY_BLOCK.findall(listed))), dtype=np.int64),
        paused=False,
        moved=int(np.count_nonzero(flags[:common] != again[:common])) + abs(len(flags) - len(again)),
        tables_unread=len(tables) - len(read),
        notes={
            "contents": "read with the vCPUs stopped",
            "flags": "read by the running guest",
            "pages_on_cpu_lists": pages_on_cpu_lists(zones),
        },
    )
    faults = snapshot.faults()
    if faults:
        raise SnapshotError("what the guest says of its memory makes no sense", details="\n".join(faults))
    return snapshot


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


def _page_flags(guest: Guest, most: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    raw = guest.shell.run([PROGRAM, "pageflags"], seconds=READ_SECONDS).stdout
    runs = np.frombuffer(raw[: len(raw) // 16 * 16], dtype="<u8").reshape(-1, 2)
    frames = int(runs[:, 1].sum())
    # A sum of u64 could wrap, so each run is bounded, too.
    if len(raw) % 16 or not len(runs) or runs[:, 1].max() > most or not 0 < frames <= most:
        raise SnapshotError(
            "the guest's page flags make no sense", details=f"{len(raw)} bytes, {frames} frames"
        )
    return np.repeat(runs[:, 0], runs[:, 1].astype(np.int64))

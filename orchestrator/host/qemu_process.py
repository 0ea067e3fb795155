"""A guest's memory as its QEMU process has it: read from /proc, no guest CPU spent."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.domain import Domain, QemuProcess
from orchestrator.host.machine import Machine
from orchestrator.procfs import kib_lines
from orchestrator.units import ENTRIES_PER_TABLE, GIB, MIB, PAGE_BYTES

# hw/i386/pc_q35.c, pc_q35_init(): with this much RAM and more, only 2 GiB of it lie below 4 GiB.
_Q35_LOW_MAXIMUM = 0xB000_0000
_Q35_LOW_WHEN_SPLIT = 2 * GIB
_ABOVE_4G = 4 * GIB

# Documentation/admin-guide/mm/pagemap.rst; of each entry's upper eight bits.
_PRESENT = np.uint8(1 << (63 - 56))
_SWAPPED = np.uint8(1 << (62 - 56))
_EXCLUSIVE = np.uint8(1 << (56 - 56))  # mapped by this process only, and once
# PAGE_IS_*, include/uapi/linux/fs.h; what PAGEMAP_SCAN says of a region.
_IS_PRESENT, _IS_SWAPPED, _IS_PFNZERO, _IS_HUGE = (np.uint8(1 << bit) for bit in (3, 4, 5, 6))

_MOST_FRAMES = 16_384  # that are read at a time


@dataclass(frozen=True)
class Segment:
    """Guest RAM that is contiguous both for the guest and in QEMU; all in bytes."""

    guest_physical: int
    host_virtual: int
    size: int


def ram_segments(domain: Domain, machine: Machine) -> tuple[Segment, ...]:
    """Where the guest's RAM lies in QEMU. Asks QEMU for both ends of each stretch, and checks."""
    # The first MiB holds ROMs beside RAM, and no page table; QEMU maps it in pieces.
    low = machine.memory if machine.memory < _Q35_LOW_MAXIMUM else _Q35_LOW_WHEN_SPLIT
    wanted = [(MIB, low - MIB)]
    if machine.memory > low:
        wanted.append((_ABOVE_4G, machine.memory - low))
    device = domain.virtio_mem()
    if device:
        wanted.append((device.address, device.maximum))
    wanted += [(dimm.address, dimm.size) for dimm in domain.dimms()]
    segments = []
    for start, size in wanted:
        first = domain.host_address(start)
        if domain.host_address(start + size - PAGE_BYTES) != first + size - PAGE_BYTES:
            raise InfrastructureError(
                f"QEMU does not map guest memory {start:#x}..{start + size:#x} in one piece",
                details="this machine type is laid out in a way that the orchestrator does not know",
            )
        segments.append(Segment(start, first, size))
    return tuple(segments)


def physical_end(machine: Machine) -> int:
    """A guest-physical address above all RAM that the machine can ever have; not the lowest such one.

    Below 4 GiB there is a hole for devices. What can be plugged begins at a whole GiB, and each device
    of it may be moved up to the next one (hw/i386/pc.c, pc_get_device_memory_range()).
    """
    devices = len(machine.dimms) + (machine.virtio_mem is not None)
    return _ABOVE_4G + machine.maximum_memory + (1 + devices) * GIB


def status_bytes(qemu: QemuProcess) -> dict[str, int]:
    """The `kB` lines of /proc/PID/status in bytes: VmRSS, VmPTE, ..."""
    return kib_lines(qemu.shell.text(f"/proc/{qemu.pid}/status"))


def kept_waiting_seconds(qemu: QemuProcess) -> float:
    """For how long QEMU's thread that waited longest for a CPU was kept waiting for it; 0 if unknown.

    Documentation/scheduler/sched-stats.rst: /proc/PID/task/TID/schedstat has nanoseconds on a CPU, and on a
    run queue.
    """
    threads = qemu.shell.texts(f"/proc/{qemu.pid}/task/*/schedstat").values()
    waits = [int(words[1]) for text in threads if len(words := text.split()) == 3]
    return max(waits, default=0) / 1e9


@dataclass(frozen=True)
class PageState:
    """For each 4 KiB page of a segment, what QEMU has of it; each array is of shape (pages,)."""

    present: NDArray[np.bool_]
    swapped: NDArray[np.bool_]
    zero_page: NDArray[np.bool_] | None
    """Present, and it takes no memory: it maps the zero page, small or huge; None where the host's kernel
    cannot tell (`NO_ZERO_PAGES`). To restore a guest, QEMU reads each page that was saved as zeros
    (ram_handle_zero(), migration/ram.c), which maps it so. A page that KSM merged with others is none."""
    huge: NDArray[np.bool_] | None = None
    """Mapped as part of a huge page; None where the host's kernel cannot tell."""

    @property
    def backed(self) -> NDArray[np.bool_]:
        """Present with memory, its own or merged; with zero pages in it where these are not distinguished."""
        return self.present if self.zero_page is None else self.present & ~self.zero_page


NO_ZERO_PAGES = (
    "the host's kernel does not say which pages are zero pages and which KSM has merged "
    "(Linux 6.7 does, by PAGEMAP_SCAN)"
)


def page_state(qemu: QemuProcess, segment: Segment) -> PageState:
    """What QEMU has of a segment. Raises OSError, and InfrastructureError where pagemap ends."""
    try:
        scanned = _scan(qemu, segment)
        # After the scan: a huge page that is split or replaced in between is then taken for what it was.
        bits = qemu.shell.page_bits(qemu.pid, segment.host_virtual, segment.size // PAGE_BYTES)
    except OSError as error:
        raise _ended(error) from error
    words = np.frombuffer(bits, dtype=np.uint8)
    # A guest's RAM is mapped once, in QEMU. So what is present and not exclusive is a zero page, which never
    # counts as mapped once, or a page that KSM merged.
    shared = ((words & _PRESENT) != 0) & ((words & _EXCLUSIVE) == 0)
    if scanned is None:
        zero_page = shared if _nothing_is_merged(qemu) else None
        return PageState((words & _PRESENT) != 0, (words & _SWAPPED) != 0, zero_page)
    present, huge = (scanned & _IS_PRESENT) != 0, (scanned & _IS_HUGE) != 0
    # Up to 6.16 (and stable kernels of its time) PAGE_IS_PFNZERO is not set for the huge zero page
    # (is_zero_pfn() instead of is_huge_zero_pmd() in pagemap_thp_category(), fs/proc/task_mmu.c); but KSM
    # merges no huge page: it splits it first.
    zero_page = present & (((scanned & _IS_PFNZERO) != 0) | (huge & shared))
    return PageState(present, (scanned & _IS_SWAPPED) != 0, zero_page, huge & present)


def _scan(qemu: QemuProcess, segment: Segment) -> NDArray[np.uint8] | None:
    """Categories of each page; None where the host's kernel has no PAGEMAP_SCAN."""
    try:
        found = qemu.shell.page_regions(qemu.pid, segment.host_virtual, segment.size)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return None
    categories = np.zeros(segment.size // PAGE_BYTES, dtype=np.uint8)
    regions = np.frombuffer(found, dtype="<u8").reshape(-1, 3).astype(np.int64)
    pages = (regions[:, :2] - segment.host_virtual) // PAGE_BYTES
    for (first, end), category in zip(pages.tolist(), regions[:, 2].tolist(), strict=True):
        categories[first:end] = category
    return categories


def _nothing_is_merged(qemu: QemuProcess) -> bool:
    """Whether KSM has merged no page of QEMU's (ksm_merging_pages, since Linux 5.19), or none at all."""
    counts = (f"/proc/{qemu.pid}/ksm_merging_pages", "/sys/kernel/mm/ksm/pages_shared")
    return any(text.strip() == "0" for text in qemu.shell.texts(*counts).values())


def read_frames(
    qemu: QemuProcess, segments: Sequence[Segment], pfns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Contents of guest frames.

    `pfns`: sorted guest frame numbers. Returns those that could be read, and their contents as
    (n, 512) u64. Left out: frames outside `segments`, and frames QEMU has no page for, since reading
    one would allocate it and so change what is measured.
    """
    found: list[NDArray[np.int64]] = []
    contents: list[NDArray[np.uint64]] = []
    for segment in segments:
        first = segment.guest_physical // PAGE_BYTES
        inside = pfns[(pfns >= first) & (pfns < first + segment.size // PAGE_BYTES)]
        if not len(inside):
            continue
        try:
            bits = qemu.shell.page_bits(qemu.pid, segment.host_virtual, segment.size // PAGE_BYTES)
            there = (np.frombuffer(bits, dtype=np.uint8) & _PRESENT) != 0
            inside = inside[there[inside - first]]
            for part in np.array_split(inside, max(1, -(-len(inside) // _MOST_FRAMES))):
                # One read for each run of neighbouring frames.
                runs = [run for run in np.split(part, np.flatnonzero(np.diff(part) != 1) + 1) if len(run)]
                places = [
                    (segment.host_virtual + (int(run[0]) - first) * PAGE_BYTES, len(run) * PAGE_BYTES)
                    for run in runs
                ]
                raw = qemu.shell.memory(qemu.pid, places)
                found.append(part)
                contents.append(np.frombuffer(raw, dtype="<u8").reshape(-1, ENTRIES_PER_TABLE))
        except OSError as error:
            raise _ended(error) from error
    if not found:
        return np.empty(0, np.int64), np.empty((0, ENTRIES_PER_TABLE), np.uint64)
    return np.concatenate(found), np.concatenate(contents)


def _ended(error: OSError) -> OrchestratorError | OSError:
    if error.errno not in {errno.ENODATA, errno.EFAULT}:  # by read(), by PAGEMAP_SCAN
        return error
    return InfrastructureError("QEMU's memory ended before the guest's did")

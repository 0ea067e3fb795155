"""A guest's memory as its QEMU process has it: read from /proc, no guest CPU spent."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.domain import Domain
from orchestrator.host.machine import Machine
from orchestrator.host.shell import HostShell
from orchestrator.units import ENTRIES_PER_TABLE, GIB, KIB, MIB, PAGE_BYTES

# hw/i386/pc_q35.c, pc_q35_init(): with this much RAM and more, only 2 GiB of it lie below 4 GiB.
_Q35_LOW_MAXIMUM = 0xB000_0000
_Q35_LOW_WHEN_SPLIT = 2 * GIB
_ABOVE_4G = 4 * GIB

# Documentation/admin-guide/mm/pagemap.rst; of each entry's upper eight bits.
_PRESENT = np.uint8(1 << (63 - 56))
_SWAPPED = np.uint8(1 << (62 - 56))
_EXCLUSIVE = np.uint8(1 << (56 - 56))  # mapped by this process only, and once
_IS_HUGE = np.uint64(1 << 6)  # PAGE_IS_HUGE, include/uapi/linux/fs.h

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


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU, and the host where it runs."""

    pid: int
    shell: HostShell = field(default_factory=HostShell)


def status_bytes(qemu: QemuProcess) -> dict[str, int]:
    """The `kB` lines of /proc/PID/status in bytes: VmRSS, VmPTE, ..."""
    lines = qemu.shell.text(f"/proc/{qemu.pid}/status").splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * KIB for name, value in pairs}


@dataclass(frozen=True)
class PageState:
    """For each 4 KiB page of a segment, what QEMU has of it; each array is of shape (pages,)."""

    present: NDArray[np.bool_]
    swapped: NDArray[np.bool_]
    zero_page: NDArray[np.bool_]
    """Present, and it takes no memory: it maps the zero page (or one that KSM merged). To restore a guest,
    QEMU reads each page that was saved as zeros (ram_handle_zero(), migration/ram.c), which maps it so."""
    huge: NDArray[np.bool_] | None = None
    """Mapped as part of a huge page; None where the host's kernel cannot tell."""

    @property
    def backed(self) -> NDArray[np.bool_]:
        """Present with memory of its own."""
        return self.present & ~self.zero_page


def page_state(qemu: QemuProcess, segment: Segment) -> PageState:
    """What QEMU has of a segment. Raises OSError, and InfrastructureError where pagemap ends."""
    pages = segment.size // PAGE_BYTES
    try:
        bits = qemu.shell.page_bits(qemu.pid, segment.host_virtual, pages)
    except OSError as error:
        raise _ended(error) from error
    words = np.frombuffer(bits, dtype=np.uint8)
    present = (words & _PRESENT) != 0
    # A guest's RAM is mapped once, in QEMU; the zero pages, small and huge, never count as mapped so.
    zero_page = present & ((words & _EXCLUSIVE) == 0)
    return PageState(present, (words & _SWAPPED) != 0, zero_page, _huge(qemu, segment))


def _huge(qemu: QemuProcess, segment: Segment) -> NDArray[np.bool_] | None:
    try:
        told = qemu.shell.page_regions(qemu.pid, segment.host_virtual, segment.size)
    except OSError:
        return None  # a kernel before 6.7 has no such call
    huge = np.zeros(segment.size // PAGE_BYTES, dtype=bool)
    regions = np.frombuffer(told, dtype="<u8").reshape(-1, 3)
    for start, end, _ in regions[(regions[:, 2] & _IS_HUGE) != 0].astype(np.int64):
        first = (start - segment.host_virtual) // PAGE_BYTES
        huge[first : (end - segment.host_virtual) // PAGE_BYTES] = True
    return huge


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
    if error.errno != errno.ENODATA:
        return error
    return InfrastructureError("QEMU's memory ended before the guest's did")

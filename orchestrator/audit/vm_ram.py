"""A VM's RAM as the program that runs it has it: which of its mappings that is, and what is present of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from orchestrator.audit.vm_process import VmProcess
from orchestrator.deadline import Deadline
from orchestrator.host.shell import HostShell
from orchestrator.model.nearly_full import MIN_PRESENT
from orchestrator.model.second_level import RamRanges
from orchestrator.units import GIB, PAGE_BYTES, PMD_BYTES

_PIECE_BYTES = 16 * GIB  # of which the answer takes 48 MiB at most
# PAGE_IS_*, include/uapi/linux/fs.h.
_IS_PRESENT, _IS_PFNZERO, _IS_HUGE = 1 << 3, 1 << 5, 1 << 6

_NOTHING = np.empty((0, 3), np.int64)

_LINE = re.compile(
    r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ..(.)(.) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *(.*)", re.DOTALL
)


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/PID/maps, or several that lie side by side and are of one file."""

    start: int
    end: int
    executable: bool
    file: str
    """Device, inode and path; of anonymous memory the same for all."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class VmRam:
    """What is present of a VM's RAM; bytes, counts of ranges of 2 MiB.

    `exact`: it is known which mappings are RAM; else all that may be are counted: figures are upper bounds.
    """

    exact: bool
    present: int
    needed: int
    """Second-level tables of all levels that map what is present. Predicted."""
    huge_present: int
    nearly_full: int
    """Ranges without a huge page that have MIN_PRESENT pages at least."""
    lacking: int
    """Bytes that these lack."""


def parse_mappings(lines: Sequence[str]) -> tuple[Mapping, ...]:
    """Lines of maps; those that are none are left out."""
    found = (_LINE.match(line) for line in lines)
    return tuple(
        Mapping(int(one[1], 16), int(one[2], 16), one[3] == "x", f"{one[6]} {one[7]} {one[8]}")
        for one in found
        if one and int(one[2], 16) > int(one[1], 16)
    )


def ram_mappings(mappings: Sequence[Mapping], blocks: Sequence[int]) -> tuple[Mapping, ...] | None:
    """The mappings of QEMU's RAM blocks of these sizes, the first block first; None where it is not certain.

    QEMU maps a block in one piece, between guard pages (qemu_ram_mmap(), util/mmap-alloc.c). Memory policies
    may split it into several lines.
    """
    runs = [_run(list(group)) for _, group in groupby(_numbered(mappings), key=lambda one: one[0])]
    candidates = [one for one in dict.fromkeys([*mappings, *runs]) if not one.executable]
    found: list[Mapping] = []
    for size, wanted in Counter(blocks).items():
        fitting = [one for one in candidates if one.size == size]
        if len(fitting) != wanted:
            return None
        found += fitting
    return tuple(found)


def read_ram(shell: HostShell, process: VmProcess, blocks: Sequence[int], deadline: Deadline) -> VmRam:
    """Scan it. Raises OSError, as `HostShell.ram_regions` does."""
    mappings = parse_mappings(shell.large_mappings(process.pid, PMD_BYTES))
    known = ram_mappings(mappings, blocks) if blocks else None
    as_kvm, collapsible = [_NOTHING], [_NOTHING]
    huge_pages = base = 0
    for mapping in mappings if known is None else known:
        # Where the guest has a block is not asked: at a multiple of 2 MiB. So last-level tables are right,
        # and upper ones a few less or more.
        found = _scan(shell, process, mapping, mapping.start if known is None else base, deadline)
        base += -(-mapping.size // GIB) * GIB
        huge_pages += int(((found[:, 1] - found[:, 0]) * found[:, 2]).sum())
        if known is None or mapping.start % PMD_BYTES == 0:
            collapsible.append(found)
        else:
            # Only anonymous memory is aligned to QEMU_VMALLOC_ALIGN (include/qemu/osdep.h), a file's to its
            # pages. Where guest and host differ modulo 2 MiB, KVM has no huge leaves
            # (kvm_alloc_memslot_metadata(), arch/x86/kvm/x86.c).
            found = found * (1, 1, 0)
        as_kvm.append(found)
    ranges = RamRanges.of(np.concatenate(as_kvm))
    full = RamRanges.of(np.concatenate(collapsible)).nearly_full(MIN_PRESENT)
    return VmRam(
        known is not None,
        int(ranges.present.sum()) * PAGE_BYTES,
        ranges.needed_bytes,
        huge_pages * PAGE_BYTES,
        len(full),
        len(full) * PMD_BYTES - int(full.sum()) * PAGE_BYTES,
    )


def _scan(
    shell: HostShell, process: VmProcess, mapping: Mapping, at: int, deadline: Deadline
) -> NDArray[np.int64]:
    """Regions with memory, as if mapped at `at`: (first page, page behind the last, whether huge)."""
    found = [_NOTHING]
    for start in range(mapping.start, mapping.end, _PIECE_BYTES):
        size = min(_PIECE_BYTES, mapping.end - start)
        known = shell.ram_regions(process.pid, process.ticks, start, size, deadline.remaining)
        raw = np.frombuffer(known, dtype="<u8").reshape(-1, 3).astype(np.int64)
        # What maps the zero page takes no memory (orchestrator.host.qemu_process.PageState).
        raw = raw[(raw[:, 2] & (_IS_PRESENT | _IS_PFNZERO)) == _IS_PRESENT]
        pages = (raw[:, :2] - mapping.start + at) // PAGE_BYTES
        found.append(np.column_stack([pages, (raw[:, 2] & _IS_HUGE) != 0]))
    return np.concatenate(found)


def _numbered(mappings: Sequence[Mapping]) -> list[tuple[int, Mapping]]:
    """Each with the number of the run of neighbours that it is in."""
    numbered: list[tuple[int, Mapping]] = []
    for one in sorted(mappings, key=lambda mapping: mapping.start):
        before = numbered[-1] if numbered else (0, one)
        joined = before[1].end == one.start and (before[1].file, before[1].executable) == (
            one.file,
            one.executable,
        )
        numbered.append((before[0] if joined else before[0] + 1, one))
    return numbered


def _run(members: Sequence[tuple[int, Mapping]]) -> Mapping:
    return replace(members[0][1], end=members[-1][1].end)

"""What a process has mapped: /proc/PID/maps, with what bears on its page tables.

Sent to other hosts with `orchestrator.host.reader`: Python's standard library and nothing else.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

PTE_SHIFT = 21  # Intel SDM vol. 3A, 4.5: a last-level table maps 2 MiB
END = 1 << 63  # user addresses are below: [vsyscall] has its table in the kernel's half
_MOST_UNSEEN = 1 << 20

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ...([sp]) [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+) *(.*)")
# Memory of these may be mapped by frame number (VM_PFNMAP), which PAGEMAP_SCAN passes over
# (pagemap_scan_test_walk(), fs/proc/task_mmu.c).
_DEVICE = re.compile(r"anon_inode:|/sys/|/proc/|/dev/(?!shm/|zero|hugepages/|mqueue/)")


class Mapping(NamedTuple):
    """A mapping; addresses."""

    start: int
    end: int
    deposits: bool
    """Anonymous: with a huge page that it maps there, the kernel sets a last-level table aside for its split
    (pgtable_trans_huge_deposit(), mm/huge_memory.c). For files and shmem x86 needs none
    (arch_needs_pgtable_deposit(), include/linux/pgtable.h)."""
    hugetlb: int
    """Size of its huge pages if it is of hugetlbfs, else 0."""
    key: str
    """Device and inode, if it is shared."""
    name: str


def parse_mappings(text: str, hugetlb: dict[str, int]) -> list[Mapping]:
    """/proc/PID/maps, by address; `hugetlb` has the huge page size of each hugetlbfs device."""
    found = []
    for line in text.splitlines():
        parts = _MAPPING.match(line)
        if not parts:
            continue
        start, end = int(parts[1], 16), int(parts[2], 16)
        if end > END:
            continue
        device, inode, name = parts[4], parts[5], parts[6]
        # mmap_zero() of drivers/char/mem.c makes a private mapping of /dev/zero an anonymous one.
        anonymous = parts[3] == "p" and (inode == "0" or name == "/dev/zero")
        huge = hugetlb.get(device, 0) if inode != "0" else 0
        key = f"{device}:{inode}" if parts[3] == "s" and inode != "0" else ""
        found.append(Mapping(start, end, anonymous, huge, key, name))
    return found


def unseen_tables(mappings: Iterable[Mapping]) -> set[int]:
    """Last-level tables, by their 2 MiB range, that mappings of devices may need; their number is bounded."""
    found: set[int] = set()
    for one in mappings:
        if not one.hugetlb and _DEVICE.match(one.name):
            last = (one.end - 1) >> PTE_SHIFT
            found.update(
                range(one.start >> PTE_SHIFT, min(last + 1, (one.start >> PTE_SHIFT) + _MOST_UNSEEN))
            )
            if len(found) > _MOST_UNSEEN:
                break
    return found


def hugetlb_devices(folder: pathlib.Path, status: str) -> dict[str, int]:
    """Huge page size of each hugetlbfs device, by its number as in maps; empty for a process without."""
    if not re.search(r"^HugetlbPages:\s+[1-9]", status, re.MULTILINE):
        return {}
    found = {}
    for line in (folder / "mountinfo").read_text(errors="replace").splitlines():
        # A line ends with `- TYPE SOURCE OPTIONS`, and pagesize=2M is among these (proc_pid_mountinfo(5)).
        head, _, rest = line.partition(" - ")
        size = re.search(r"pagesize=(\d+)([KMG])", rest)
        if rest.startswith("hugetlbfs ") and size:
            major, minor = map(int, head.split()[2].split(":"))
            found[f"{major:02x}:{minor:02x}"] = int(size[1]) << {"K": 10, "M": 20, "G": 30}[size[2]]
    # MAP_HUGETLB and memfd's have devices of the kernel's own, one for each size, which no mount shows.
    for name in os.listdir("/sys/kernel/mm/hugepages") if os.path.isdir("/sys/kernel/mm/hugepages") else ():  # noqa: PTH112, PTH208  # names
        size_kib = int(name.rpartition("-")[2].removesuffix("kB"))
        flags = os.MFD_HUGETLB | (size_kib.bit_length() + 9) << os.MFD_HUGE_SHIFT
        try:
            empty = os.memfd_create("size", flags)
        except OSError:
            continue
        device = os.fstat(empty).st_dev
        os.close(empty)
        found[f"{os.major(device):02x}:{os.minor(device):02x}"] = size_kib << 10
    return found

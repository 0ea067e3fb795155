"""What the kernel says of a process's pages: /proc/PID/pagemap, read or scanned.

Sent to other hosts with `orchestrator.host.reader`: Python's standard library and nothing else.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import pathlib
import struct

PAGE = 4096
MAX_CHUNK_BYTES = 64 << 20

# PAGE_IS_*, include/uapi/linux/fs.h.
IS_PRESENT, IS_SWAPPED, IS_ZERO, IS_HUGE = 1 << 3, 1 << 4, 1 << 5, 1 << 6

# PAGEMAP_SCAN, since Linux 6.7 (include/uapi/linux/fs.h): _IOWR('f', 16, struct pm_scan_arg of 96 bytes).
_PAGEMAP_SCAN = 0xC0606610
_MOST_REGIONS = 1 << 16


class Scanner:
    """PAGEMAP_SCAN over an open pagemap. It only reads: no flags, so nothing is write-protected.

    One call is bounded by `regions` that it can give, and by the pages of them if it is told so. The kernel
    holds mmap_lock for reading while it walks, and lets go of it after 512 regions at the latest
    (PAGEMAP_WALK_SIZE, do_pagemap_scan(), fs/proc/task_mmu.c).
    """

    def __init__(self, pagemap: int, regions: int = _MOST_REGIONS) -> None:
        self._pagemap = pagemap
        self._regions = array.array("Q", bytes(24 * regions))
        self._most = regions

    def scan(self, start: int, end: int, most_pages: int = 0) -> tuple[memoryview, int]:
        """(start, end, categories) in u64 each, of pages present or swapped out, and how far it came.

        The memory is good until the next call. Raises OSError with ENOTTY where the kernel has no such call.
        """
        place, _ = self._regions.buffer_info()
        wanted = IS_PRESENT | IS_SWAPPED
        told = wanted | IS_ZERO | IS_HUGE
        words = (96, 0, start, end, 0, place, self._most, most_pages, 0, 0, wanted, told)
        count = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, bytearray(struct.pack("12Q", *words)))
        found = memoryview(self._regions)[: count * 3]
        full = count == self._most or (most_pages and _pages(found) >= most_pages)
        # Not by walk_end: do_pagemap_scan() leaves there where an earlier one of its rounds came to, if the last
        # round ends the range. What was to be found before the last region's end was found.
        return found, found[-2] if full else end


def _pages(regions: memoryview) -> int:
    return (sum(regions[1::3]) - sum(regions[::3])) // PAGE


def page_bits(pid: int, address: int, pages: int) -> bytes:
    """Bits 56 to 63 of each page's entry in pagemap, a byte each."""
    with pathlib.Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        raw = exactly(pagemap.fileno(), pages * 8, address // PAGE * 8)
    return raw[7::8]


def page_regions(pid: int, address: int, size: int) -> bytes:
    """What a process has of a range: (start, end, categories) in u64 each, as PAGEMAP_SCAN gives them, of all
    pages that are present or swapped out. Raises OSError with ENOTTY where the kernel has no such call."""
    found = bytearray()
    start, end = address, address + size
    with pathlib.Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        scanner = Scanner(pagemap.fileno())
        while start < end:
            regions, start = scanner.scan(start, end)
            found += regions.tobytes()
    return bytes(found)


def exactly(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes of a file, none less. Raises OSError with ENODATA where it ends before."""
    parts = []
    while size:
        part = os.pread(descriptor, min(size, MAX_CHUNK_BYTES), offset)
        if not part:
            raise OSError(errno.ENODATA, "there is nothing at this address")
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)

"""A process for an audit to look at.

`python audit_child.py WORD...` does one thing after another with its memory, says `ready`, and ends when its
standard input does. Standard library only.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path

GIB, TABLE, PAGE = 1 << 30, 2 << 20, 4096
_MAP_NORESERVE, _MAP_HUGETLB = 0x4000, 0x40000
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE

SPARSE_GIB = 50


def _private(size: int, *, huge: bool = False) -> mmap.mmap:
    found = mmap.mmap(-1, size + TABLE, flags=PRIVATE)
    found.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return found


def sparse() -> mmap.mmap:
    """One page in every 2 MiB over 50 GiB: 25,600 tables."""
    memory = _private(SPARSE_GIB * GIB)
    for offset in range(0, SPARSE_GIB * GIB, TABLE):
        memory[offset] = 1
    return memory


def discarded() -> mmap.mmap:
    """The same, let go of in steps of 4 KiB: no kernel frees a table for that."""
    memory = sparse()
    for offset in range(0, SPARSE_GIB * GIB, TABLE):
        memory.madvise(mmap.MADV_DONTNEED, offset, PAGE)
    return memory


def discarded_at_once() -> mmap.mmap:
    """The same, let go of in one call: a kernel with CONFIG_PT_RECLAIM frees the tables."""
    memory = sparse()
    memory.madvise(mmap.MADV_DONTNEED)
    return memory


def huge() -> mmap.mmap:
    """64 MiB in transparent huge pages, if the machine has any to give."""
    memory = _private(64 << 20, huge=True)
    for offset in range(0, 64 << 20, PAGE):
        memory[offset] = 1
    return memory


def half_huge() -> mmap.mmap:
    """Huge pages of which every other is split, by letting go of one page."""
    memory = huge()
    for offset in range(0, 64 << 20, 2 * TABLE):
        memory.madvise(mmap.MADV_DONTNEED, offset, PAGE)
    return memory


def zero() -> mmap.mmap:
    """64 MiB that are read and never written."""
    memory = _private(64 << 20)
    for offset in range(0, 64 << 20, PAGE):
        memory[offset]
    return memory


def fragmented() -> mmap.mmap:
    """Every other page of 64 MiB."""
    memory = _private(64 << 20)
    for offset in range(0, 64 << 20, 2 * PAGE):
        memory[offset] = 1
    return memory


def shared() -> mmap.mmap:
    """64 MiB of shmem."""
    memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for offset in range(0, 64 << 20, PAGE):
        memory[offset] = 1
    return memory


def file() -> mmap.mmap:
    """This machine's interpreter, mapped whole."""
    with Path(sys.executable).open("rb") as opened:
        memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    for offset in range(0, len(memory), PAGE):
        memory[offset]
    return memory


def paged_out() -> mmap.mmap:
    """64 MiB in swap."""
    memory = fragmented()
    memory.madvise(21)  # MADV_PAGEOUT, include/uapi/asm-generic/mman-common.h
    return memory


def hugetlb() -> mmap.mmap:
    """16 MiB in huge pages of the machine's pool."""
    memory = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB)
    for offset in range(0, 16 << 20, TABLE):
        memory[offset] = 1
    return memory


def nothing() -> mmap.mmap:
    """55 TiB of address space in which nothing is touched."""
    return _private(55 << 40)


_DEEDS: tuple[Callable[[], mmap.mmap], ...] = (
    sparse,
    discarded,
    discarded_at_once,
    huge,
    half_huge,
    zero,
    fragmented,
    shared,
    file,
    paged_out,
    hugetlb,
    nothing,
)

if __name__ == "__main__":
    by_name = {deed.__name__: deed for deed in _DEEDS}
    kept = [by_name[word]() for word in sys.argv[1:]]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()

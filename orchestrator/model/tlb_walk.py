"""Address translation, access by access: TLBs, page walks of one and two levels, and their caches. Compiled.

A level of a table is 1 for PTEs, 2 for PMDs, up to 5; the same numbers for second-level tables. Every cache
is a stretch of one array of keys, 0 for nothing, each set in the order of use, the latest first (LRU).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from orchestrator.model.jit import inlined, njit
from orchestrator.model.snapshot import I64, U8
from orchestrator.units import ENTRIES_PER_TABLE

MOST_LEVELS = 5
_BITS = ENTRIES_PER_TABLE.bit_length() - 1  # of an address that a level takes

# Rows of `shapes`: TLBs by the size of the page (0 of 4 KiB, 1 of 2 MiB), walk caches by the entry's level.
L1, L2, NESTED_TLB = 0, 2, 4
GUEST_WALK = 6
HOST_WALK = GUEST_WALK + MOST_LEVELS + 1
CACHES = HOST_WALK + MOST_LEVELS + 1


class Count(IntEnum):
    """Places of what `translate` counts."""

    ACCESSES = 0
    L1_MISSES = 1
    WALKS = 2
    GUEST_REFERENCES = 3
    HOST_REFERENCES = 4


_L1_MISSES, _WALKS = int(Count.L1_MISSES), int(Count.WALKS)
_ACCESSES, _GUEST, _HOST = int(Count.ACCESSES), int(Count.GUEST_REFERENCES), int(Count.HOST_REFERENCES)


@inlined
def _hit(tags: Any, shapes: Any, cache: int, number: int, kind: int) -> bool:
    """Look `number` up, and have it there from now on: a miss evicts the least recently used.

    `kind` keeps entries of several kinds apart that share a cache: the size of the page, the level.
    """
    ways = shapes[cache, 2]
    if ways == 0:
        return False
    first = shapes[cache, 0] + (number & shapes[cache, 1]) * ways
    key = (number << 4 | kind) + 1
    carried = tags[first]
    if carried == key:
        return True
    tags[first] = key
    for at in range(first + 1, first + ways):
        found = tags[at]
        tags[at] = carried
        if found == key:
            return True
        carried = found
    return False


@inlined
def _upper_level(tags: Any, shapes: Any, caches: int, page: int, leaf: int, levels: int) -> int:  # noqa: PLR0917  # compiled: called by position
    """The lowest level above `leaf` whose entry is cached; levels + 1 where none is, and all must be read."""
    level = leaf + 1
    while level <= levels and not _hit(tags, shapes, caches + level, page >> _BITS * (level - 1), level):
        level += 1
    return level


@inlined
def _second_level(tags: Any, shapes: Any, frame: int, host_huge: Any, levels: int) -> int:
    """References that translating a guest-physical page takes."""
    huge = int(host_huge[frame >> _BITS])
    if _hit(tags, shapes, NESTED_TLB + huge, frame >> _BITS * huge, huge):
        return 0
    leaf = 1 + huge
    return int(_upper_level(tags, shapes, HOST_WALK, frame, leaf, levels)) - leaf


@njit
def translate(  # noqa: PLR0917  # as above
    pages: I64,
    tags: I64,
    shapes: I64,
    guest_huge: U8,
    host_huge: U8,
    tables: I64,
    levels: int,
    host_levels: int,
    counts: I64,
) -> None:
    """Translate `pages` (accesses,) in order; `tags` and `counts` (Count,) go on from what they have.

    `guest_huge` says of each range of 2 MiB whether its leaf is one of 2 MiB; `host_huge` the same of the
    guest-physical ones, of memory and of the tables behind it. `tables` (levels + 1,) is where tables of each
    level begin there, as a page; its first is 0, for the page itself. One level: `host_levels` is 0.
    """
    for page in pages:
        counts[_ACCESSES] += 1
        of_guest = int(guest_huge[page >> _BITS])
        # An entry is as large as the smaller leaf (Intel SDM vol. 3C, 28.3.1: combined translations).
        size = of_guest if host_levels == 0 else of_guest & int(host_huge[page >> _BITS])
        number = page >> _BITS * size
        if _hit(tags, shapes, L1 + size, number, size):
            continue
        counts[_L1_MISSES] += 1
        if _hit(tags, shapes, L2 + size, number, size):
            continue
        counts[_WALKS] += 1
        leaf = 1 + of_guest
        upper = _upper_level(tags, shapes, GUEST_WALK, page, leaf, levels)
        counts[_GUEST] += upper - leaf
        if host_levels:
            # A cached entry has the host's address of the table below it, which needs no translation then.
            level = upper - 1 if upper > levels else upper - 2
            while True:  # the tables that are read, from the top, and then the page
                if level < leaf:
                    level = 0
                frame = tables[level] + (page >> _BITS * level)
                counts[_HOST] += _second_level(tags, shapes, frame, host_huge, host_levels)
                if level == 0:
                    break
                level -= 1

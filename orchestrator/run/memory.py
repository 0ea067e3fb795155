"""Memory of this process over the trials of a run (docs/soak.md).

glibc's malloc has no word for either in Python; another C library is left as it is.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAPPED_BYTES: Final = 128 << 10  # what glibc begins with


def steady_malloc() -> None:
    """Keep what malloc has of memory from growing with trials (mallopt(3)).

    Threads that are started from now on allocate where all others do: each trial has some of its own, and
    arenas of their own would each get as large as what any of them ever had in it. They do not wait for each
    other at that, as they do for the interpreter's lock.

    Large blocks are mappings, which go with them. Left to itself, malloc takes from its heap what is no
    larger than a block that was freed before; it cannot return the hole where anything small lies behind it.
    """
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Return to the kernel what malloc keeps of memory that was freed (malloc_trim(3)), between trials."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

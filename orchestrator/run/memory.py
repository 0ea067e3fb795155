"""Memory of this process over the trials of a run (docs/soak.md).

glibc's malloc has no word for either in Python; another C library is left as it is.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h


def share_one_arena() -> None:
    """Have threads that are started from now on allocate where all others do (mallopt(3)).

    Each trial has threads of its own. By arenas of their own they would not wait for each other; they do, for
    the interpreter's lock. But each arena would get as large as what any of them ever had in it.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the kernel what malloc keeps of memory that was freed (malloc_trim(3)), between trials."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

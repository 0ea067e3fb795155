"""Memory of this process, between the trials of a run."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return to the kernel what glibc's malloc keeps of memory that was freed (malloc_trim(3)).

    Each trial has threads of its own, and what they free lies scattered over the arenas. It is not all that
    grows from trial to trial (docs/soak.md).
    """
    with suppress(AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)

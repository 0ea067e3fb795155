"""Memory of a run: freed, it goes back to the kernel; threads have no arenas of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In an arena of a thread's own, below the last block, which stays in use: free(3) alone returns none of it.
_SCATTERED = """
import ctypes, threading
from pathlib import Path
from orchestrator.procfs import kib_lines
from orchestrator.run.memory import give_back

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 10

def held():
    return kib_lines(Path("/proc/self/status").read_text())["RssAnon"]

def work():
    blocks = [libc.malloc(size) for _ in range(512)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:
        libc.free(block)

before = held()
thread = threading.Thread(target=work)
thread.start()
thread.join()
freed = held()
give_back()
print(freed - before, held() - before)
"""


def test_what_threads_freed_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCATTERED], capture_output=True, text=True, timeout=60, check=True
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 24 << 20, "free alone gives it back: nothing is shown"
    assert left < 4 << 20


# Whether blocks lie with those of the main thread, below the program break, or elsewhere: one of a thread,
# and a large one, when another as large was freed before.
_BLOCKS = """
import ctypes, sys, threading
from pathlib import Path
from orchestrator.run.memory import steady_malloc

if sys.argv[1] == "steady":
    steady_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = []
thread = threading.Thread(target=lambda: blocks.append(libc.malloc(64)))
thread.start()
thread.join()
libc.free(libc.malloc(4 << 20))
blocks.append(libc.malloc(2 << 20))
(heap,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
low, high = (int(end, 16) for end in heap.split()[0].split("-"))
print(*(low <= block < high for block in blocks))
"""


@pytest.mark.parametrize(("malloc", "on_the_heap"), [("its own", "False True"), ("steady", "True False")])
def test_of_a_run_all_threads_allocate_alike_and_large_blocks_are_mappings(
    malloc: str, on_the_heap: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKS, malloc], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == on_the_heap

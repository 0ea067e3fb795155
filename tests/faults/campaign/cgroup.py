"""A cgroup of a fault's own, in whatever hierarchy this machine has."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class Cgroup:
    """Of one controller, `memory` or `pids`. Raises OSError where it may not be made."""

    def __init__(self, controller: str, name: str) -> None:
        self._v1 = (_ROOT / controller / "tasks").exists()
        self.folder = (_ROOT / controller if self._v1 else _ROOT) / f"{name}-{controller}"
        if not self._v1:
            (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        self.folder.mkdir(exist_ok=True)

    def bound_memory(self, size_bytes: int) -> None:
        """Whoever takes more meets the OOM killer."""
        (self.folder / ("memory.limit_in_bytes" if self._v1 else "memory.max")).write_text(str(size_bytes))

    def bound_pids(self, most: int) -> None:
        """fork(2) and clone(2) fail with EAGAIN beyond."""
        (self.folder / "pids.max").write_text(str(most))

    def add(self, pid: int) -> None:
        """Move a process, with all of its threads, into it."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Once what was in it has ended."""
        end = time.monotonic() + 5
        while self.folder.exists() and time.monotonic() < end:
            with suppress(OSError):
                self.folder.rmdir()
            time.sleep(0.1)

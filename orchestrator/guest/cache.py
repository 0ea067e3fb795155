"""Where images, keys and what else is slow to make are kept between runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.host.trusted import must_be_trusted

CACHE_VARIABLE = "ORCHESTRATOR_CACHE"


def cache_dir() -> Path:
    """`$ORCHESTRATOR_CACHE`, else root's `/var/cache/orchestrator` or a user's `~/.cache/orchestrator`.

    Raises InfrastructureError where another user could change what is in it: guests boot from it.
    """
    folder = _cache_dir()
    must_be_trusted(folder)
    return folder


def _cache_dir() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/orchestrator")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrator"


@contextmanager
def locked(folder: Path, *, mode: int = 0o755) -> Iterator[int]:
    """Hold an exclusive lock on `folder` (made with `mode` if missing): two runs make nothing twice.

    Gives the lock's descriptor. A process that inherits it holds the lock as well, even when we are killed.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    must_be_trusted(folder)  # it may have been there
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the lock of `folder` at this moment. Makes nothing and does not wait."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

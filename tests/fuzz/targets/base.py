"""The shape of a fuzz target, and how it is found by its name."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

from orchestrator.registry import Registry

ROOT: Final = Path(__file__).resolve().parents[3]
GOLDEN: Final = ROOT / "tests" / "unit" / "golden"


class Target(ABC):
    """Something that reads what others wrote.

    A target is made once for a process, and fed with one input after another: each must be executed as if it
    were the first.
    """

    name: ClassVar[str]
    """As it is registered."""
    executions: ClassVar[int]
    """How many inputs `tox -e fuzz` gives to it: what takes it about a minute."""
    seconds: ClassVar[float] = 5.0
    """CPU time that one input may take, of `most_bytes` at most; most of it is room for a busy machine."""
    most_bytes: ClassVar[int] = 1 << 14
    """Of an input."""
    address_space: ClassVar[int] = 6 << 30
    """Bytes of the process that fuzzes it (RLIMIT_AS), of which libraries map much at the start."""
    tokens: ClassVar[tuple[str, ...]] = ()
    """Words that mean something to it."""
    designed: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors beside OrchestratorError that it documents, and that its callers turn into one."""

    @abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Whole inputs, from which others are made."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Read it, and do with it what is done with it when it is read."""

    def may_write(self) -> tuple[Path, ...]:
        """Folders in which it may write while it is fed; the target itself puts its input there."""
        return (scratch(),)


TARGETS: Final[Registry[type[Target]]] = Registry("fuzz target", "targets")


@cache
def scratch() -> Path:
    """A folder of this process, in memory where there is one."""
    place = "/dev/shm"  # only a folder that is made anew is used in it
    folder = tempfile.mkdtemp(prefix="orchestrator-fuzz-", dir=place if os.access(place, os.W_OK) else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)

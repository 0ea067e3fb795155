"""Notices when a test touches the cache of whoever runs the tests: it is not for tests to read or change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.guest.cache import CACHE_VARIABLE

# https://docs.python.org/3/library/audit_events.html; each has a path among its first two arguments.
_EVENTS = {"open", *(f"os.{name}" for name in ("chmod", "link", "listdir", "mkdir", "remove", "rename"))}
_EVENTS |= {f"os.{name}" for name in ("rmdir", "scandir", "symlink", "truncate", "utime")}
_STARTED = "subprocess.Popen"


def real_caches(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The caches of whoever has this environment: what is chosen there, and what would be if nothing were."""
    home = Path(environment.get("HOME") or "/root")
    users = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "orchestrator"
    chosen = environment.get(CACHE_VARIABLE)
    return ("/var/cache/orchestrator", str(users), *([str(Path(chosen).absolute())] if chosen else []))


class RealCache:
    """What was touched of the real caches, in this process; and what was started that would use them."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(folders)
        self.touched: list[str] = []

    def install(self) -> None:
        """Look at all that this process does from now on. There is no way back (PEP 578)."""
        sys.addaudithook(self._look)

    @contextmanager
    def expected(self, folder: Path) -> Iterator[list[str]]:
        """Take `folder` for a real cache, too, and give what is touched meanwhile instead of noting it."""
        self.folders.append(str(folder))
        before, self.touched = self.touched, []
        try:
            yield self.touched
        finally:
            self.touched = before
            self.folders.remove(str(folder))

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike) and self._is_real(os.fsdecode(path)):
                    self.touched.append(f"{event} {os.fsdecode(path)}")
        elif event == _STARTED:
            _, words, _, environment = arguments
            given = os.environ if environment is None else environment
            uses = isinstance(words, list | tuple) and any(_is_ours(os.fsdecode(word)) for word in words)
            if uses and isinstance(given, Mapping):
                chosen = given.get(CACHE_VARIABLE) or given.get(CACHE_VARIABLE.encode())
                if not chosen or self._is_real(os.fsdecode(chosen)):
                    self.touched.append(f"{event} {words} without {CACHE_VARIABLE}")

    def _is_real(self, path: str) -> bool:
        return any(path == folder or path.startswith(f"{folder}/") for folder in self.folders)


def _is_ours(word: str) -> bool:
    """Whether this starts, or may start, the orchestrator."""
    return word == sys.executable or Path(word).name == "bootstrap"

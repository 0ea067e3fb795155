"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, then put it in the place of `path` in one move.

    The new file is on the disk before it takes the name, so that a power cut leaves one of the two.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    try:
        write(fresh)
        with fresh.open("rb+") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        # People know the file by its name: the other one is gone when they read this.
        if error.filename in {None, str(fresh), fresh}:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            fresh.unlink()
    sync_directory(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Put `text` (UTF-8) in the place of the file `path`."""
    data = text.encode("utf-8", "replace")  # guests can print what is no Unicode
    replace_file(path, lambda fresh: _write(fresh, data))


def sync_directory(directory: Path) -> None:
    """Make names that were just put into `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)

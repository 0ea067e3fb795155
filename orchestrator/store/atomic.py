"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import errno
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
        # What pyarrow raises has no name, and a text with its own words in it.
        if error.filename in {None, str(fresh), fresh}:
            raise type(error)(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            fresh.unlink()
    sync_directory(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Put `text` (UTF-8) in the place of the file `path`."""
    data = text.encode("utf-8", "replace")  # guests can print what is no Unicode
    replace_file(path, lambda fresh: _write(fresh, data))


def keep_room(path: Path, size: int) -> None:
    """Take `size` bytes of the disk, to be freed when something must be written though it is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        error.filename = str(path.parent)
        raise
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make names that were just put into `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)

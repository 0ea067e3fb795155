"""Seals: what files of the cache were when they were made, so that damage is found before a guest runs on it.

    <folder>/seal.json    of each file its size, inode, mtime, ctime and CRC-32; the boot of the last check

The contents are read when a file is made, when anything but its contents says that it may have changed,
and once in each boot of the machine. In between a look takes one stat(2) of each file: nothing that writes
through the file system leaves ctime as it was. What a disk changes by itself is found in the next boot.

CRC-32 is for accidents: it finds every burst of up to 32 bits, and all but one in 4e9 of others. SHA-256
takes twice as long where the CPU has instructions for it, and several times as long where it has not.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from orchestrator.processes import boot_id

SEAL: Final = "seal.json"
_CHUNK_BYTES: Final = 256 << 10
_ZEROS: Final = bytes(_CHUNK_BYTES)


@dataclass(frozen=True)
class _File:
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    crc: int

    def looks_like(self, other: os.stat_result) -> bool:
        found = (other.st_size, other.st_ino, other.st_mtime_ns, other.st_ctime_ns)
        return found == (self.size, self.inode, self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True)
class _Seal:
    boot: str
    files: dict[str, _File]
    base: int | None


def seal(folder: Path, names: Iterable[str], *, base: int | None = None) -> None:
    """Note what the files of `folder` are now; `base` is the CRC-32 of what they need below them, if any.

    Raises OSError.
    """
    _write(folder, {name: _look_at(folder / name) for name in names}, base)


def damage(folder: Path, names: Iterable[str], *, thorough: bool = False) -> str:
    """What is wrong with the files of `folder`, in words for people; empty where they are as they were.

    `thorough`: read them even where nothing says that they changed. Files without a seal, which an older
    version has made, are sealed as they are. A file at which the disk fails is damaged, too. Raises
    OSError where one cannot be read for another reason.
    """
    names = tuple(names)
    for path in (folder / name for name in names):
        if not path.is_file():
            return f"{path} is missing"
    sealed = _read(folder)
    if sealed is None or set(sealed.files) != set(names):
        seal(folder, names)
        return ""
    fresh, same_boot = dict(sealed.files), sealed.boot == boot_id()
    for name, before in sealed.files.items():
        path = folder / name
        now = path.stat()
        if now.st_size != before.size:
            return f"{path} has {now.st_size:,} bytes, and had {before.size:,} when it was made"
        if thorough or not same_boot or not before.looks_like(now):
            found = _look_again(path)
            if isinstance(found, str):
                return found
            fresh[name] = found
            if found.crc != before.crc:
                return f"{path} has other contents than when it was made"
    if fresh != sealed.files or not same_boot:
        _write(folder, fresh, sealed.base)
    return ""


def sealed_crc(folder: Path, name: str) -> int | None:
    """The CRC-32 that a file of `folder` was sealed with; None where there is no seal."""
    sealed = _read(folder)
    return sealed.files[name].crc if sealed and name in sealed.files else None


def sealed_base(folder: Path) -> int | None:
    """The `base` that the files of `folder` were sealed with."""
    sealed = _read(folder)
    return sealed.base if sealed else None


def _look_again(path: Path) -> _File | str:
    """What a file is now, or that the disk failed at it.

    Raises OSError for the machine's faults, such as descriptors that it has run out of.
    """
    try:
        return _look_at(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"{path} cannot be read: {error.strerror}"


def _look_at(path: Path) -> _File:
    with path.open("rb", buffering=0) as file:
        was = os.fstat(file.fileno())
        crc = 0
        for offset, chunk in _chunks(file.fileno(), was.st_size):
            crc = zlib.crc32(chunk, zlib.crc32(offset.to_bytes(8, "little"), crc))
    return _File(was.st_size, was.st_ino, was.st_mtime_ns, was.st_ctime_ns, crc)


def _chunks(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Chunks of a file that are not all zero, each with its offset.

    A disk is mostly holes. Whether zeros are holes may change as a file is copied, its contents do not.
    """
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # holes up to the end
        offset -= offset % _CHUNK_BYTES
        chunk = os.pread(descriptor, _CHUNK_BYTES, offset)
        if not chunk:
            return  # it was cut short meanwhile
        if chunk != _ZEROS[: len(chunk)]:
            yield offset, chunk
        offset += _CHUNK_BYTES


def _read(folder: Path) -> _Seal | None:
    try:
        said = json.loads((folder / SEAL).read_text())
        files = {name: _File(**one) for name, one in said["files"].items()}
        return _Seal(str(said["boot"]), files, said.get("base"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(folder: Path, files: dict[str, _File], base: int | None) -> None:
    fresh = folder / f".{SEAL}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(_Seal(boot_id(), files, base))))
    fresh.replace(folder / SEAL)

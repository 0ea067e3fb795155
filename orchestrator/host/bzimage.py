"""What a file is that shall be booted as a Linux kernel: its boot header, and the release that it names.

Documentation/arch/x86/boot.rst has the header: `boot_flag` at 0x1fe, `HdrS` at 0x202, `kernel_version` at
0x20e.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final

_HEADER_BYTES: Final = 0x10000
_SECTOR: Final = 0x200
_BOOT_FLAG: Final = (0x1FE, b"\x55\xaa")  # 0xAA55, little-endian
_MAGIC: Final = (0x202, b"HdrS")
_VERSION_AT: Final = 0x20E  # of a text; counted from 0x200
_RELEASE: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}")
_TAKE: Final = "take arch/x86/boot/bzImage of the build"
# How files begin that are taken for a bzImage.
_OTHERS: Final = (
    (b"\x7fELF", "an ELF file, such as vmlinux", _TAKE),
    (b"\x1f\x8b", "gzip data", f"unpack it, or {_TAKE}"),
    (b"\xfd7zXZ\0", "xz data", f"unpack it, or {_TAKE}"),
    (b"\x28\xb5\x2f\xfd", "zstd data", f"unpack it, or {_TAKE}"),
    (b"!<arch>\n", "an archive, such as a Debian package", "unpack it and take its /boot/vmlinuz-*"),
)


def not_a_bzimage(path: Path) -> tuple[str, str] | None:
    """What the file is if it is no bzImage, and what would be right; None if it is one.

    Raises OSError where it cannot be read.
    """
    head = _head(path)
    if _has(head, _BOOT_FLAG) and _has(head, _MAGIC):
        return None
    for begin, what, right in _OTHERS:
        if head.startswith(begin):
            return f"{what}, no bzImage", right
    if not head:
        return "an empty file, no bzImage", _TAKE
    if b"\0" not in head and _is_utf8(head):
        return "a text file, no bzImage", _TAKE
    return "no bzImage: it has no boot header (0xAA55 at 0x1fe, `HdrS` at 0x202)", _TAKE


def bzimage_release(path: Path) -> str:
    """The release that a bzImage names itself in its header; empty where it is none, or names none."""
    try:
        head = _head(path)
    except OSError:
        return ""
    if len(head) < _SECTOR * 2 or not _has(head, _MAGIC):
        return ""
    (offset,) = struct.unpack_from("<H", head, _VERSION_AT)
    text = head[offset + _SECTOR :].split(b"\0", 1)[0] if offset else b""
    words = text[:256].decode("ascii", errors="replace").split()
    return words[0] if words and _RELEASE.match(words[0]) else ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _has(head: bytes, mark: tuple[int, bytes]) -> bool:
    at, value = mark
    return head[at : at + len(value)] == value


def _is_utf8(head: bytes) -> bool:
    try:
        head[:-4].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True

"""Archives of arrays as text that can be changed piece by piece: a changed byte of a .npz breaks a checksum.

    @meta
    {"label": ...}
    @flags <u8
    raw bytes of the array

A line that begins with `@` begins a member; without a dtype its bytes are those of the .npy file.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MEMBER: Final = re.compile(rb"(?:^|\n)@([A-Za-z0-9_./-]{1,40})(?: ([<>|]?[a-zA-Z][0-9]{0,2}))?\n")
_META_DTYPE: Final = b"|u1"


def as_text(archive: Mapping[str, NDArray[Any]]) -> bytes:
    """An archive of arrays as such text."""
    return b"".join(
        b"\n@%s %s\n%s" % (name.encode(), array.dtype.str.encode(), array.tobytes())
        for name, array in archive.items()
    )


def as_archive(text: bytes) -> bytes:
    """The archive that the text says, as bytes of a .npz, its checksums right."""
    parts = _MEMBER.split(text)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, dtype, content in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            archive.writestr(zipfile.ZipInfo(f"{name.decode()}.npy"), _npy(dtype, content))
    return sink.getvalue()


def _npy(dtype: bytes | None, content: bytes) -> bytes:
    if dtype is None:
        return content
    try:
        size = np.dtype(dtype.decode()).itemsize or 1
    except TypeError:
        size = 1
    head = b"{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }" % (dtype, len(content) // size)
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return (
        b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content[: len(content) // size * size]
    )

"""Snapshots on disk: one `.npz` file each, which plain numpy reads.

    import json, numpy
    z = numpy.load("after-unplug.npz")                     # nothing in it is pickled
    meta = json.loads(z["meta"].tobytes())                 # label, kernel, regions, paused, notes ...
    flags, evidence = z["flags"], z["evidence"]            # by pfn: /proc/kpageflags, u64; Evidence, u8
    start, slot, value = z["entry_start"], z["entry_slot"], z["entry_value"]
    first_table = slot[start[0]:start[1]], value[start[0]:start[1]]   # of frame z["table_pfn"][0]

`schema` counts up whenever a reader of the old version would misread the file; 1 had no `evidence`
and no memory map, 2 no deposited page tables.
The arrays are those of `orchestrator.model.snapshot.Snapshot`, which says what they mean; `meta` is the
rest of it as JSON.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.store.atomic import replace_file
from orchestrator.units import GIB, format_size

SCHEMA: Final = 3
_READS: Final = (1, 2, 3)
MAX_BYTES: Final = 4 * GIB  # uncompressed: the flags of a guest of 2 TiB, or 400 million entries

_ARRAYS: Final[dict[str, np.dtype[Any]]] = {
    "flags": np.dtype("<u8"),
    "table_pfn": np.dtype("<i8"),
    "entry_start": np.dtype("<i8"),
    "entry_slot": np.dtype("<u2"),
    "entry_value": np.dtype("<u8"),
    "online_blocks": np.dtype("<i8"),
    "evidence": np.dtype("u1"),
    "memmap_pfn": np.dtype("<i8"),
    "memmap_first": np.dtype("<i8"),
    "deposited_pfn": np.dtype("<i8"),
    "deposited_below": np.dtype("<i8"),
}
_SINCE: Final = {
    "evidence": 2,
    "memmap_pfn": 2,
    "memmap_first": 2,
    "deposited_pfn": 3,
    "deposited_below": 3,
}  # the schema that an array came with; before, a Snapshot's default stands
_SCHEMA_DTYPE: Final = np.dtype("<i8")
_META_DTYPE: Final = np.dtype("u1")
# numpy.lib.format 1.0: magic, version, length of the header, the header with its fields in sorted order.
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<descr>[^']{1,8})', 'fortran_order': False, "
    rb"'shape': \((?P<length>\d{1,15}),\), \} *\n",
    re.DOTALL,
)
_RETAKE: Final = "take the snapshot again, or fetch the file again if it was copied here"


class _Meta(BaseModel):
    """The part of a Snapshot that is no array."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    label: str
    kernel: str
    regions: list[Region]
    online_block_bytes: int
    paused: bool
    moved: int
    tables_unread: int
    notes: dict[str, str]
    memmap_frames: int = 64
    deposits_read: bool = False


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Put `snapshot` into the file `path`, whole or not at all.

    Raises ValueError when the snapshot is inconsistent, OSError when it cannot be written.
    """
    faults = snapshot.faults()
    if faults:
        raise ValueError(f"snapshot {snapshot.label!r}: {'; '.join(faults)}")
    meta = _Meta(
        label=snapshot.label,
        kernel=snapshot.kernel,
        regions=list(snapshot.regions),
        online_block_bytes=snapshot.online_block_bytes,
        paused=snapshot.paused,
        moved=snapshot.moved,
        tables_unread=snapshot.tables_unread,
        notes=snapshot.notes,
        memmap_frames=snapshot.memmap_frames,
        deposits_read=snapshot.deposits_read,
    )
    arrays = {name: np.asarray(getattr(snapshot, name), dtype=dtype) for name, dtype in _ARRAYS.items()}
    arrays["schema"] = np.array([SCHEMA], dtype=_SCHEMA_DTYPE)
    arrays["meta"] = np.frombuffer(meta.model_dump_json().encode(), dtype=_META_DTYPE)

    def write(fresh: Path) -> None:
        with fresh.open("wb") as file:  # a file object: savez appends .npz to a name that lacks it
            np.savez_compressed(file, allow_pickle=False, **arrays)

    replace_file(path, write)


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in the file `path`.

    Raises BadInputError when there is no such file, or it is truncated, damaged, of another version or
    of another kind. Reads no pickles, and no more than MAX_BYTES.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # NotImplementedError and RuntimeError: zipfile's words for compressions and encryption it lacks.
        raise BadInputError(f"{path}: not a snapshot, or damaged: {error}", hint=_RETAKE) from error


def _read(path: Path, archive: zipfile.ZipFile) -> Snapshot:
    size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise BadInputError(
            f"{path}: holds {format_size(size)}, more than any snapshot ({format_size(MAX_BYTES)})"
        )
    if "schema.npy" not in archive.namelist():
        raise BadInputError(f"{path}: not a snapshot: it says no schema version")
    schema = read_array(path, archive, "schema", _SCHEMA_DTYPE)
    if len(schema) != 1 or schema[0] not in _READS:
        raise BadInputError(
            f"{path}: a snapshot of schema {schema.tolist()}, this program reads {_READS[0]} to {SCHEMA}",
            hint="read it with the version of the program that wrote it",
        )
    try:
        meta = _Meta.model_validate_json(read_array(path, archive, "meta", _META_DTYPE).tobytes())
    except ValidationError as error:
        raise BadInputError(f"{path}: its meta data are damaged", details=str(error), hint=_RETAKE) from error
    arrays = {
        name: read_array(path, archive, name, dtype)
        for name, dtype in _ARRAYS.items()
        if schema[0] >= _SINCE.get(name, 1)
    }
    snapshot = Snapshot(
        **arrays,
        label=meta.label,
        kernel=meta.kernel,
        regions=tuple(meta.regions),
        online_block_bytes=meta.online_block_bytes,
        paused=meta.paused,
        moved=meta.moved,
        tables_unread=meta.tables_unread,
        notes=meta.notes,
        memmap_frames=meta.memmap_frames,
        deposits_read=meta.deposits_read,
    )
    faults = snapshot.faults()
    if faults:
        raise BadInputError(f"{path}: damaged: {faults[0]}", details="\n".join(faults), hint=_RETAKE)
    return snapshot


def read_array(path: Path, archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One member, which has to be a flat array of exactly `dtype`; read-only.

    numpy's own reader allocates whatever a header asks for and lets errors of Python's tokenizer through
    when a header is damaged. The one header that numpy writes for such an array is all that is taken here.
    """
    try:
        data = archive.read(f"{name}.npy")
    except KeyError:
        raise BadInputError(f"{path}: not a snapshot: it has no {name}") from None
    header = _HEADER.match(data)
    if header is None or header["descr"] != dtype.str.encode():
        raise BadInputError(f"{path}: {name} is not a flat array of {dtype}", hint=_RETAKE)
    if int(header["length"]) * dtype.itemsize != len(data) - header.end():
        raise BadInputError(f"{path}: {name} is cut short, or has a false header", hint=_RETAKE)
    return np.frombuffer(data, dtype=dtype, offset=header.end())

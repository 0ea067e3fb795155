"""Traces on disk: one `.npz` file each, which plain numpy reads (docs/model.md has the format).

    z = numpy.load("redis.npz")
    meta = json.loads(z["meta"].tobytes())     # name, tables, assumption
    z["table"], z["kind"]                      # u4: which table; u1: 0 let go, 1 zero page read, 2 touched

`trace_schema` counts up whenever a reader of the old version would misread the file.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.trace import Trace
from orchestrator.store.atomic import replace_file
from orchestrator.store.snapshot_file import MAX_BYTES, read_array
from orchestrator.units import format_size

TRACE_SCHEMA: Final = 1
_SCHEMA_DTYPE: Final = np.dtype("<i8")
_META_DTYPE: Final = np.dtype("u1")
_TABLE_DTYPE: Final = np.dtype("<u4")
_KIND_DTYPE: Final = np.dtype("u1")
_AGAIN: Final = "orchestrator model trace PATTERN -o FILE   writes one"


class _Meta(BaseModel):
    """The part of a Trace that is no array."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    tables: int
    assumption: str


def write_trace(path: Path, trace: Trace) -> None:
    """Put `trace` into the file `path`, whole or not at all. Raises ValueError when it is inconsistent.

    A file has no owners: what is made up is of one memory cgroup.
    """
    if faults := trace.faults():
        raise ValueError(f"trace {trace.name!r}: {'; '.join(faults)}")
    meta = _Meta(name=trace.name, tables=trace.tables, assumption=trace.assumption)
    arrays: dict[str, NDArray[Any]] = {
        "trace_schema": np.array([TRACE_SCHEMA], dtype=_SCHEMA_DTYPE),
        "meta": np.frombuffer(meta.model_dump_json().encode(), dtype=_META_DTYPE),
        "table": np.asarray(trace.table, dtype=_TABLE_DTYPE),
        "kind": np.asarray(trace.kind, dtype=_KIND_DTYPE),
    }

    def write(fresh: Path) -> None:
        with fresh.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    replace_file(path, write)


def is_trace(path: Path) -> bool:
    """Whether the file is a trace, of whatever version."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "trace_schema.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_trace(path: Path) -> Trace:
    """The trace in the file `path`. Raises BadInputError when it is none, damaged or of another version."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadInputError(f"{path}: not a trace, or damaged: {error}", hint=_AGAIN) from error


def _read(path: Path, archive: zipfile.ZipFile) -> Trace:
    size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise BadInputError(
            f"{path}: holds {format_size(size)}, more than a trace may ({format_size(MAX_BYTES)})"
        )
    if "trace_schema.npy" not in archive.namelist():
        raise BadInputError(f"{path}: not a trace: it says no schema version", hint=_AGAIN)
    schema = read_array(path, archive, "trace_schema", _SCHEMA_DTYPE).tolist()
    if schema != [TRACE_SCHEMA]:
        raise BadInputError(
            f"{path}: a trace of schema {schema}, this program reads {TRACE_SCHEMA}", hint=_AGAIN
        )
    try:
        meta = _Meta.model_validate_json(read_array(path, archive, "meta", _META_DTYPE).tobytes())
    except ValidationError as error:
        raise BadInputError(f"{path}: its meta data are damaged", hint=_AGAIN) from error
    table = read_array(path, archive, "table", _TABLE_DTYPE)
    trace = Trace(
        meta.name, meta.tables, table, read_array(path, archive, "kind", _KIND_DTYPE), meta.assumption
    )
    if faults := trace.faults():
        raise BadInputError(f"{path}: damaged: {faults[0]}", hint=_AGAIN)
    return trace

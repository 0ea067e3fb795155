"""Traces on disk: one `.npz` file each, which plain numpy reads (docs/model.md has the format).

    z = numpy.load("redis.npz")
    meta = json.loads(z["meta"].tobytes())     # name, tables, assumption
    z["table"], z["kind"]                      # u4: which table; u1: 0 unmapped, 1 zero page read, 2 touched

`trace_schema` counts up whenever a reader of the old version would misread the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from orchestrator.model.trace import Trace
from orchestrator.store.archive import Archive, ArchiveKind

_TABLE_DTYPE: Final = np.dtype("<u4")
_KIND_DTYPE: Final = np.dtype("u1")


class _Meta(BaseModel):
    """The part of a Trace that is no array."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    tables: int
    assumption: str


_KIND: Final = ArchiveKind(
    "a trace",
    schema_name="trace_schema",
    reads=(1,),
    meta=_Meta,
    hint="orchestrator model trace PATTERN -o FILE   writes one",
)


def write_trace(path: Path, trace: Trace) -> None:
    """Put `trace` into the file `path`, whole or not at all. Raises ValueError when it is inconsistent.

    A file has no owners: what is made up is of one memory cgroup.
    """
    if faults := trace.faults():
        raise ValueError(f"trace {trace.name!r}: {'; '.join(faults)}")
    meta = _Meta(name=trace.name, tables=trace.tables, assumption=trace.assumption)
    arrays: dict[str, NDArray[Any]] = {
        "table": np.asarray(trace.table, dtype=_TABLE_DTYPE),
        "kind": np.asarray(trace.kind, dtype=_KIND_DTYPE),
    }
    _KIND.write(path, meta, arrays)


def is_trace(path: Path) -> bool:
    """Whether the file is a trace, of whatever version."""
    return _KIND.is_one(path)


def read_trace(path: Path) -> Trace:
    """The trace in the file `path`. Raises BadInputError, as `ArchiveKind.read` says."""
    return _KIND.read(path, _trace)


def _trace(archive: Archive[_Meta]) -> Trace:
    meta = archive.meta
    table, kind = archive.array("table", _TABLE_DTYPE), archive.array("kind", _KIND_DTYPE)
    trace = Trace(meta.name, meta.tables, table, kind, meta.assumption)
    archive.must_be_whole(trace.faults())
    return trace

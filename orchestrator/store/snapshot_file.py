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

from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.store.archive import Archive, ArchiveKind

SCHEMA: Final = 3

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


class _Meta(BaseModel):
    """The part of a Snapshot that is no array."""

    # pydantic keeps up to 16,384 strings of what it parses: each snapshot has some that never come again, and
    # the process would grow with each trial (docs/soak.md).
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, cache_strings="keys")

    label: str
    kernel: str
    regions: list[Region]
    online_block_bytes: int
    paused: bool
    moved: int  # Snapshot.frames_changed
    tables_unread: int
    notes: dict[str, str]
    memmap_frames: int = 64
    deposits_read: bool = False


_KIND: Final = ArchiveKind(
    "a snapshot",
    schema_name="schema",
    reads=(1, 2, SCHEMA),
    meta=_Meta,
    hint="take the snapshot again, or fetch the file again if it was copied here",
)


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
        moved=snapshot.frames_changed,
        tables_unread=snapshot.tables_unread,
        notes=snapshot.notes,
        memmap_frames=snapshot.memmap_frames,
        deposits_read=snapshot.deposits_read,
    )
    arrays = {name: np.asarray(getattr(snapshot, name), dtype=dtype) for name, dtype in _ARRAYS.items()}
    _KIND.write(path, meta, arrays)


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in the file `path`. Raises BadInputError, as `ArchiveKind.read` says."""
    return _KIND.read(path, _snapshot)


def _snapshot(archive: Archive[_Meta]) -> Snapshot:
    meta = archive.meta
    arrays = {
        name: archive.array(name, dtype)
        for name, dtype in _ARRAYS.items()
        if archive.schema >= _SINCE.get(name, 1)
    }
    snapshot = Snapshot(
        **arrays,
        label=meta.label,
        kernel=meta.kernel,
        regions=tuple(meta.regions),
        online_block_bytes=meta.online_block_bytes,
        paused=meta.paused,
        frames_changed=meta.moved,
        tables_unread=meta.tables_unread,
        notes=meta.notes,
        memmap_frames=meta.memmap_frames,
        deposits_read=meta.deposits_read,
    )
    archive.must_be_whole(snapshot.faults())
    return snapshot

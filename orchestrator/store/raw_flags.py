"""A plain copy of /proc/kpageflags as a snapshot: flags, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.frames import KPF_NOPAGE
from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.store.snapshot_file import MAX_BYTES
from orchestrator.units import PAGE_BYTES, format_size

_FLAG_BYTES = 8
# The highest bit that /proc/kpageflags has ever had is 47 (include/linux/kernel-page-flags.h).
_FOREIGN_BITS = np.uint64(~((1 << 48) - 1) & (1 << 64) - 1)


def read_raw_flags(path: Path, *, base_pfn: int = 0, block_bytes: int) -> Snapshot:
    """The dump in `path`: one little-endian u64 for each frame from `base_pfn` on.

    Frame 0 of the snapshot is the first frame of the block that `base_pfn` lies in; its one region begins
    there. A frame with no flag at all counts as plain kernel memory, where it may lie in memory that was
    removed: a dump has no list of what is online. Raises BadInputError when it cannot be such a dump.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadInputError(
                f"{path}: {format_size(size)}, more than any dump of page flags ({format_size(MAX_BYTES)})"
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data or len(data) % _FLAG_BYTES:
        raise BadInputError(
            f"{path}: {len(data)} bytes are no whole number of page flags, 8 bytes each",
            hint="copy it whole: dd if=/proc/kpageflags of=FILE bs=1M",
        )
    flags = np.frombuffer(data, dtype="<u8")
    if np.any(flags & _FOREIGN_BITS):
        raise BadInputError(
            f"{path}: neither a snapshot nor a dump of /proc/kpageflags: it has bits that no page flag has",
            hint="give a .npz of a run's trials/*/snapshots/, or a plain copy of /proc/kpageflags",
        )
    block_pages = block_bytes // PAGE_BYTES
    before, after = base_pfn % block_pages, -(base_pfn + len(flags)) % block_pages
    hole = np.uint64(1 << KPF_NOPAGE)
    padded = np.concatenate([np.full(before, hole), flags, np.full(after, hole)])
    return Snapshot(
        label=path.name,
        kernel="",
        flags=padded,
        table_pfn=np.empty(0, dtype=np.int64),
        entry_start=np.zeros(1, dtype=np.int64),
        entry_slot=np.empty(0, dtype=np.uint16),
        entry_value=np.empty(0, dtype=np.uint64),
        regions=(Region("memory", 0, len(padded), block_pages, plugged_bytes=0),),
        online_block_bytes=block_bytes,
        online_blocks=np.arange(len(padded) // block_pages, dtype=np.int64),
        paused=False,
        moved=-1,
        notes={"evidence": "a dump of page flags has none", "contents": "a dump of page flags has none"},
    )

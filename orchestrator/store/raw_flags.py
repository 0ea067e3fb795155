"""A plain copy of /proc/kpageflags as a snapshot: flags, and nothing else but what was copied beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.frames import KPF_MMAP, KPF_NOPAGE, flag_set
from orchestrator.model.kernel_free import KernelFree
from orchestrator.model.migration_target import PARTIAL
from orchestrator.model.snapshot import U64, Bool, Evidence, Region, Snapshot
from orchestrator.store.archive import MAX_BYTES
from orchestrator.units import MIB, PAGE_BYTES, format_size

_WORD_BYTES = 8
# The highest bit that /proc/kpageflags has ever had is 47 (include/linux/kernel-page-flags.h).
_FOREIGN_BITS = np.uint64(~((1 << 48) - 1) & (1 << 64) - 1)
# The kernel has struct pages for whole sections (SECTION_SIZE_BITS, arch/x86/include/asm/sparsemem.h).
_SECTION_PAGES = 128 * MIB // PAGE_BYTES
_MOST_MEMINFO_BYTES = 1 << 16
_READ_BYTES = 1 << 20


def read_raw_flags(
    path: Path,
    *,
    base_pfn: int = 0,
    block_bytes: int,
    counts: Path | None = None,
    meminfo: Path | None = None,
) -> Snapshot:
    """The dump in `path`: one little-endian u64 for each frame from `base_pfn` on.

    `counts` is a copy of /proc/kpagecount for the same frames, `meminfo` one of /proc/meminfo. Frame 0 of the
    snapshot is the first frame of the block that `base_pfn` lies in; its one region begins there.

    A section of 128 MiB in which no frame has a flag, or is mapped, is taken as not there: on 7.x removed
    and offline memory reads 0 (`kpage_read()`, fs/proc/page.c), and so do struct pages that are not
    initialised yet. Other frames without any flag have Evidence.UNKNOWN. Raises BadInputError when it cannot
    be such a dump.
    """
    flags = _words(path, "/proc/kpageflags")
    if np.any(flags & _FOREIGN_BITS):
        raise BadInputError(
            f"{path}: neither a snapshot nor a dump of /proc/kpageflags: it has bits that no page flag has",
            hint="give a .npz of a run's trials/*/snapshots/, or a plain copy of /proc/kpageflags",
        )
    notes = {"evidence": "a dump of page flags has none", "contents": "a dump of page flags has none"}
    if base_pfn:
        notes[PARTIAL] = f"it begins with frame {base_pfn}"
    silent = flags == 0
    mapped = np.zeros(len(flags), dtype=np.bool_)
    changed = -1
    if counts is not None:
        mapped = _mapped(counts, len(flags))
        # A folio that is mapped has KPF_MMAP; both files read at one time would agree.
        changed = int(np.count_nonzero(mapped & ~flag_set(flags, KPF_MMAP)))
        notes["kpagecount"] = str(changed)
    if meminfo is not None:
        notes |= _kernel_free(meminfo).note()
    gone = _whole_sections(silent & ~mapped, base_pfn)
    notes["sections_without_a_flag"] = str(int(np.count_nonzero(gone)) // _SECTION_PAGES)

    block_pages = block_bytes // PAGE_BYTES
    edges = base_pfn % block_pages, -(base_pfn + len(flags)) % block_pages
    hole = np.uint64(1 << KPF_NOPAGE)
    padded = np.pad(np.where(gone, hole, flags), edges, constant_values=hole)
    unknown = np.pad(silent & ~gone, edges, constant_values=False)
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
        frames_changed=-1,
        notes=notes,
        evidence=np.where(unknown, Evidence.UNKNOWN, Evidence.NONE).astype(np.uint8),
    )


def _read(path: Path, most: int) -> bytes:
    """All of a file. Those of /proc say that they are empty, so the size is known only then."""
    try:
        parts, size = [], 0
        with path.open("rb") as file:
            while size <= most and (part := file.read(_READ_BYTES)):
                parts.append(part)
                size += len(part)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size > most:
        raise BadInputError(f"{path}: more than {format_size(most)}, which is no copy of such a file")
    return b"".join(parts)


def _words(path: Path, source: str) -> U64:
    data = _read(path, MAX_BYTES)
    if not data or len(data) % _WORD_BYTES:
        raise BadInputError(
            f"{path}: {len(data)} bytes are no whole number of page flags, 8 bytes each",
            hint=f"copy it whole: dd if={source} of=FILE bs=1M",
        )
    return np.frombuffer(data, dtype="<u8")


def _mapped(path: Path, frames: int) -> Bool:
    """Which frames are mapped by a process, by a copy of /proc/kpagecount."""
    found = _words(path, "/proc/kpagecount")
    if len(found) != frames:
        raise BadInputError(
            f"{path}: counts of {len(found):,} frames, and the dump has flags of {frames:,}",
            hint="copy /proc/kpageflags and /proc/kpagecount one after the other, from the same frame on",
        )
    mapped: Bool = found != 0
    return mapped


def _kernel_free(path: Path) -> KernelFree:
    free = KernelFree.of_meminfo(_read(path, _MOST_MEMINFO_BYTES).decode(errors="replace"))
    if free is None:
        raise BadInputError(f"{path}: no copy of /proc/meminfo: it has no MemFree")
    return free


def _whole_sections(silent: Bool, base_pfn: int) -> Bool:
    """Which frames lie in a section that the dump has all of, and in which all are `silent`."""
    first = -base_pfn % _SECTION_PAGES
    sections = max(len(silent) - first, 0) // _SECTION_PAGES
    end = first + sections * _SECTION_PAGES
    gone = np.zeros(len(silent), dtype=np.bool_)
    gone[first:end] = np.repeat(silent[first:end].reshape(-1, _SECTION_PAGES).all(axis=1), _SECTION_PAGES)
    return gone

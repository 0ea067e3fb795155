"""Measures what this machine can of the costs that the model needs, and says of the rest why not."""

from __future__ import annotations

import mmap
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import BadInputError
from orchestrator.host.cpu import cpu_model
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tables import LAST_LEVEL, decode_tables
from orchestrator.store.costs_file import CostsFile, Measured
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES

CODECS: Final = ("lz4_raw", "zstd")
_MOST_TABLES: Final = 20_000
_DISK_SAMPLES: Final = 400
_DISK_PAGES: Final = 4096
_DISK_SECONDS: Final = 10.0
_FAULT_PAGES: Final = 4096
_FAULT_ROUNDS: Final = 20
_WARM: Final = 50

NEEDS_KVM: Final = (
    "needs a KVM that is not emulated; a process's own fault is among the conditions (minor_fault)"
)
NEEDS_NODES: Final = "needs two memory nodes, and a kernel that migrates page tables: none does yet"
NEEDS_KERNEL: Final = "needs a kernel that reclaims tables under pressure: none does yet"
WHY_MISSING: Final = {
    "fault_seconds": NEEDS_KVM,
    "faults_per_table": "follows from the guests: set by what they touch again",
    "free_seconds": NEEDS_KERNEL,
    "migrate_seconds": NEEDS_NODES,
    "remote_walk_seconds": NEEDS_NODES,
    "retry_seconds": NEEDS_KERNEL,
}

Pages = NDArray[np.uint8]


def calibrate(
    snapshots: Sequence[Snapshot],
    disk: Path | None,
    *,
    codec: str = CODECS[0],
    progress: Callable[[str], None] = lambda _: None,
) -> CostsFile:
    """Costs of compressing the tables of `snapshots` with `codec`, and of pages on the file system of `disk`.

    Without either, what needs it is missing, with the reason. The other codecs are among the conditions.
    """
    import pyarrow as pa

    costs: dict[str, Measured] = {}
    missing = dict(WHY_MISSING)
    conditions = {
        "cpu": cpu_model(),
        "kernel": platform.release(),
        "pyarrow": pa.__version__,
        "minor_fault": _minor_fault(),
    }
    pages = np.concatenate(
        [np.zeros((0, PAGE_BYTES), dtype=np.uint8), *(table_pages(one) for one in snapshots)]
    )
    if len(pages):
        progress(f"compressing {len(pages):,} page-table pages")
        conditions["tables"] = f"{len(pages):,} last-level tables with entries, of kernels " + ", ".join(
            sorted({one.kernel for one in snapshots})
        )
        for name in CODECS:
            by_name, words = _compression(pages, name)
            conditions[name] = words
            costs |= by_name if name == codec else {}
    else:
        why = "no snapshot with tables that have entries was given"
        missing |= dict.fromkeys(("compress_seconds", "decompress_seconds", "compressed_ratio"), why)
    if disk is not None:
        progress(f"writing and reading pages in {disk}")
        costs |= _disk(disk)
        conditions["disk"] = "a file with O_DIRECT, each write followed by fdatasync(): not a swap device"
    else:
        missing |= dict.fromkeys(("swap_out_seconds", "swap_in_seconds"), "no folder was given (--disk)")
    return CostsFile(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        conditions=conditions,
        costs=costs,
        missing=missing,
    )


def table_pages(snapshot: Snapshot) -> Pages:
    """Contents of its last-level tables that have entries, as they were in memory; shape (tables, 4096)."""
    from orchestrator.model.frames import classify_frames

    tables = decode_tables(snapshot, classify_frames(snapshot))
    filled = np.diff(snapshot.entry_start) > 0
    chosen = np.flatnonzero(filled & (tables.level == LAST_LEVEL))[:_MOST_TABLES]
    words = np.zeros((len(chosen), ENTRIES_PER_TABLE), dtype="<u8")
    for row, table in enumerate(chosen):
        part = slice(snapshot.entry_start[table], snapshot.entry_start[table + 1])
        words[row, snapshot.entry_slot[part]] = snapshot.entry_value[part]
    return words.view(np.uint8).reshape(len(chosen), PAGE_BYTES)


def _compression(pages: Pages, name: str) -> tuple[dict[str, Measured], str]:
    """Costs with one codec, and what it did in words."""
    import pyarrow as pa

    codec = pa.Codec(name)
    call = _seconds(lambda: codec.compress(b"\0" * 8, asbytes=True), 1000)
    took: list[float] = []
    back: list[float] = []
    ratio: list[float] = []
    for number, page in enumerate(pages):
        raw = page.tobytes()
        began = time.perf_counter()
        packed = codec.compress(raw, asbytes=True)
        middle = time.perf_counter()
        plain = codec.decompress(packed, PAGE_BYTES, asbytes=True)
        end = time.perf_counter()
        if plain != raw:
            raise BadInputError(f"{name} did not give a page back as it was")
        if number >= min(_WARM, len(pages) // 2):
            took.append(middle - began)
            back.append(end - middle)
            # What does not get smaller is kept as it is (mm/zswap.c does so, too).
            ratio.append(min(len(packed), PAGE_BYTES) / PAGE_BYTES)
    how = f"{name} by pyarrow, one core, each page by itself"
    words = (
        f"median compress {np.median(took) * 1e6:.2f} µs, decompress {np.median(back) * 1e6:.2f} µs, "
        f"ratio {np.median(ratio):.3f}; of that the call itself {call * 1e6:.2f} µs"
    )
    return {
        "compress_seconds": _measured(took, "s", how),
        "decompress_seconds": _measured(back, "s", how),
        "compressed_ratio": _measured(ratio, "ratio", how),
    }, words


def _disk(folder: Path) -> dict[str, Measured]:
    if not folder.is_dir():
        raise BadInputError(f"{folder}: there is no such folder")
    path = folder / f".orchestrator-calibrate-{os.getpid()}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
    except OSError as error:
        raise BadInputError(
            f"{folder}: cannot be written without the page cache: {error.strerror}",
            hint="give a folder of a file system on a disk",
        ) from error
    try:
        path.unlink()
        with mmap.mmap(-1, PAGE_BYTES) as page:  # O_DIRECT wants aligned memory
            page.write(os.urandom(PAGE_BYTES))
            os.posix_fallocate(file, 0, _DISK_PAGES * PAGE_BYTES)
            for at in range(_DISK_PAGES):
                os.pwrite(file, page, at * PAGE_BYTES)
            os.fdatasync(file)
            places = np.random.default_rng(0).permutation(_DISK_PAGES)

            def write(at: int) -> None:
                os.pwrite(file, page, at)
                os.fdatasync(file)

            written = list(_timed(places, write))
            read = list(_timed(places[::-1], lambda at: os.preadv(file, [page], at)))
    finally:
        os.close(file)
    return {
        "swap_out_seconds": _measured(written, "s", "random writes of 4 KiB, O_DIRECT and fdatasync()"),
        "swap_in_seconds": _measured(read, "s", "random reads of 4 KiB, O_DIRECT"),
    }


def _minor_fault() -> str:
    """What a process pays to map a resident page again, in words: no cost of the model.

    It is the nearest thing that any machine can measure, but not what `fault_seconds` means: KVM leaves the
    guest, finds the page by the host's own entry (hva_to_pfn_fast(), virt/kvm/kvm_main.c) and enters again,
    where this fault finds a page of tmpfs in the page cache. Writes: a read would map 16 pages at once.
    """
    places = range(0, _FAULT_PAGES * PAGE_BYTES, PAGE_BYTES)

    def touch(memory: mmap.mmap) -> float:
        began = time.perf_counter()
        for place in places:
            memory[place] = 1
        return (time.perf_counter() - began) / _FAULT_PAGES

    with mmap.mmap(-1, _FAULT_PAGES * PAGE_BYTES) as memory:  # shared: its pages stay when its entries go
        touch(memory)
        took = []
        for _ in range(_FAULT_ROUNDS):
            mapped = touch(memory)
            memory.madvise(mmap.MADV_DONTNEED)
            took.append(touch(memory) - mapped)
    low, typical, high = (value * 1e6 for value in np.percentile(took, (5, 50, 95)))
    return (
        f"median {typical:.2f} µs (5 % {low:.2f}, 95 % {high:.2f}) of {_FAULT_ROUNDS} x {_FAULT_PAGES} "
        "writes to resident pages of shared memory, whose entries were cleared before; no VM exit in it"
    )


def _timed(places: NDArray[np.int64], act: Callable[[int], object]) -> Iterator[float]:
    ends = time.monotonic() + _DISK_SECONDS
    for place in places[:_DISK_SAMPLES].tolist():
        began = time.perf_counter()
        act(place * PAGE_BYTES)
        yield time.perf_counter() - began
        if time.monotonic() > ends:
            return


def _seconds(act: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - began) / times


def _measured(samples: Sequence[float], unit: str, how: str) -> Measured:
    low, typical, high = (float(value) for value in np.percentile(samples, (5, 50, 95)))
    return Measured(low=low, typical=typical, high=high, unit=unit, samples=len(samples), how=how)

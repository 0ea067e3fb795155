"""Snapshots, and all that is made of one: blame, blocks, what each policy would free."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import archives
import numpy as np
from numpy.typing import NDArray

from orchestrator.model.snapshot import Region, Snapshot
from orchestrator.records.events import SnapshotTaken
from orchestrator.store.reader import ListedTrial, TrialFolder
from orchestrator.store.snapshot_file import write_snapshot
from orchestrator.summary.snapshots import look_at_snapshots
from targets.base import GOLDEN, TARGETS, Target, scratch

_LINKS = 0x067


def small_snapshot() -> Mapping[str, NDArray[Any]]:
    """A guest of a few frames: three levels of tables, a block that is pinned, one that is free."""
    flags = np.full(96, 1 << 10, dtype="<u8")
    flags[[3, 4, 5, 40]] = 1 << 26
    flags[50:60] = 1 << 5 | 1 << 12
    flags[70] = 1 << 7
    entries = {3: {0: 4}, 4: {1: 5, 2: 40}, 5: {}, 40: {7: 50, 9: 51}}
    found = Snapshot(
        label="loaded",
        kernel="6.12.0",
        flags=flags,
        table_pfn=np.array(sorted(entries)),
        entry_start=np.cumsum([0, *(len(entries[pfn]) for pfn in sorted(entries))]),
        entry_slot=np.array([slot for pfn in sorted(entries) for slot in entries[pfn]], dtype="<u2"),
        entry_value=np.array(
            [to << 12 | _LINKS for pfn in sorted(entries) for to in entries[pfn].values()], dtype="<u8"
        ),
        regions=(Region("vmem0", 32, 64, 16, 48 * 4096),),
        online_block_bytes=16 * 4096,
        online_blocks=np.arange(6),
        paused=True,
        frames_changed=0,
        notes={"stopped_seconds": "0.1", "kpagecount": "0"},
        evidence=np.zeros(96, dtype="u1"),
        memmap_pfn=np.array([33, 34]),
        memmap_first=np.array([0, 64]),
        deposited_pfn=np.array([41]),
        deposited_below=np.array([4]),
        deposits_read=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npz")
        write_snapshot(path, found)
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}


@TARGETS.register("snapshot-file")
class SnapshotFile(Target):
    name: ClassVar = "snapshot-file"
    executions: ClassVar = 2_000
    tokens: ClassVar = (
        *(
            "@flags <u8",
            "@meta |u1",
            "@schema <i8",
            "@evidence |u1",
            "@entry_value <u8",
            '"block_pages":',
            '"pages":',
        ),
        *('"start_pfn":', '"plugged_bytes":', '"online_block_bytes":', '"second_level":', '"memmap_frames":'),
    )

    def seeds(self) -> Iterator[bytes]:
        whole = small_snapshot()
        yield archives.as_text(whole)
        yield archives.as_text({name: one for name, one in whole.items() if not name.startswith("memmap")})
        path = next(GOLDEN.glob("run-version-3/trials/*/snapshots/after-unplug.npz"))
        yield path.read_bytes()[:4096]

    def feed(self, data: bytes) -> None:
        folder = scratch() / "trial"
        (folder / "snapshots").mkdir(parents=True, exist_ok=True)
        raw = data.startswith(b"PK")
        (folder / "snapshots" / "a.npz").write_bytes(data if raw else archives.as_archive(data))
        trial = TrialFolder(folder, ListedTrial("t", "a", 1, {}))
        trial.__dict__["events"] = (SnapshotTaken(t_ns=1, label="loaded", file="a.npz"),)
        look_at_snapshots(trial)

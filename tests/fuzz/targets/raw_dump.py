"""Plain copies of /proc/kpageflags, /proc/kpagecount and /proc/meminfo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from orchestrator.model.blocks import map_memory
from orchestrator.model.policies import StateView
from orchestrator.store.raw_flags import read_raw_flags
from orchestrator.summary.snapshots import blame_regions
from targets.base import TARGETS, Target, scratch

_SPLIT = b"\n@@\n"


@TARGETS.register("raw-dump")
class RawDump(Target):
    """An input is base_pfn and block size (4 bytes each), flags, counts and meminfo, parted by `@@` lines."""

    name: ClassVar = "raw-dump"
    executions: ClassVar = 5_000
    most_bytes: ClassVar = 6_000
    tokens: ClassVar = ("\n@@\n", "MemFree:        1 kB", "\0" * 8)

    def seeds(self) -> Iterator[bytes]:
        flags = np.full(300, 1 << 10, dtype="<u8")
        flags[::7], flags[5] = 1 << 5 | 1 << 12, 1 << 26
        counts = np.zeros(300, dtype="<u8")
        counts[::7] = 1
        yield bytes([0, 0, 0, 0, 2, 0, 0, 0]) + flags.tobytes()
        parts = (
            bytes([7, 1, 0, 0, 0, 2, 0, 0]) + flags.tobytes(),
            counts.tobytes(),
            b"MemFree:      12 kB\n",
        )
        yield _SPLIT.join(parts)

    def feed(self, data: bytes) -> None:
        flags, _, rest = data[8:].partition(_SPLIT)
        counts, _, meminfo = rest.partition(_SPLIT)
        folder = scratch()
        paths = {}
        for name, content in (("kpageflags", flags), ("kpagecount", counts), ("meminfo", meminfo)):
            if content or name == "kpageflags":
                paths[name] = folder / name
                paths[name].write_bytes(content)
        # Both are options of the command line, which bounds them.
        base, block = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:6], "little") % 4096 + 1
        snapshot = read_raw_flags(
            paths["kpageflags"],
            base_pfn=base,
            block_bytes=block * 4096,
            counts=paths.get("kpagecount"),
            meminfo=paths.get("meminfo"),
        )
        assert not snapshot.faults(), snapshot.faults()
        state = StateView.of(snapshot)
        blame_regions(state)
        map_memory(snapshot, classes=state.frames)

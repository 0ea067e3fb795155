"""Traces, and a replay of each policy over one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import archives
import numpy as np

from orchestrator.errors import BadInputError
from orchestrator.model.policies import OverTrace
from orchestrator.model.replay import replay
from orchestrator.store.trace_file import is_trace, read_trace
from targets.base import TARGETS, Target, scratch


@TARGETS.register("trace-file")
class TraceFile(Target):
    name: ClassVar = "trace-file"
    executions: ClassVar = 1_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        "@table <u4",
        "@kind |u1",
        "@meta |u1",
        "@trace_schema <i8",
        '"tables":',
        '"assumption":',
    )

    def __init__(self) -> None:
        self.feed(next(iter(self.seeds())))  # compiles the kernels, which is no time of an input

    def seeds(self) -> Iterator[bytes]:
        chance = np.random.default_rng(1)
        arrays = {
            "table": chance.integers(0, 40, 200).astype("<u4"),
            "kind": chance.integers(0, 3, 200).astype("u1"),
            "trace_schema": np.array([1], dtype="<i8"),
            "meta": np.frombuffer(b'{"name": "a", "tables": 40, "assumption": "made up"}', dtype="u1"),
        }
        yield archives.as_text(arrays)

    def feed(self, data: bytes) -> None:
        path = scratch() / "trace.npz"
        path.write_bytes(data if data.startswith(b"PK") else archives.as_archive(data))
        is_trace(path)
        trace = read_trace(path)
        for name in OverTrace.names():
            try:
                replay(trace, name, 16 * 4096, seed=1)
            except BadInputError:
                continue

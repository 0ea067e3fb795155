"""Files of `model sweep`, and the file that they vary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.scenario.sweep import load_sweep
from targets.base import ROOT, TARGETS, Target, scratch

_BASE = ROOT / "scenarios" / "overcommit" / "sparse.yaml"


@TARGETS.register("sweep-yaml")
class SweepYaml(Target):
    name: ClassVar = "sweep-yaml"
    executions: ClassVar = 1_000
    most_bytes: ClassVar = 2_000
    seconds: ClassVar = 20.0
    tokens: ClassVar = (
        "overcommit:",
        "compare:",
        "grid:",
        "host.memory:",
        "guests.sparse.size:",
        "costs:",
        "file:",
        "../",
    )

    def seeds(self) -> Iterator[bytes]:
        whole = (ROOT / "scenarios" / "sweeps" / "hosts.yaml").read_text()
        yield whole.replace("../overcommit/", "").encode()
        yield (
            b"version: 1\nname: c\ncompare:\n  traces: [base.yaml]\n  budgets: [1GiB]\n  seeds: 2\ncosts: [shipped]\n"
        )

    def feed(self, data: bytes) -> None:
        folder = scratch() / "sweep"
        folder.mkdir(exist_ok=True)
        for name in ("sparse.yaml", "dense.yaml", "base.yaml"):
            if not (folder / name).exists():
                (folder / name).write_bytes(_BASE.read_bytes())
        path = folder / "sweep.yaml"
        path.write_bytes(data)
        assert load_sweep(path).points_in_all >= 0

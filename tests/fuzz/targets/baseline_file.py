"""Baselines, and a gate by one: an own one, or any that a mirror has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.analysis.differences import comparison_as_json
from orchestrator.errors import BadInputError
from orchestrator.verdict import compare_runs
from orchestrator.verdict.baseline import read_baseline
from targets.base import GOLDEN, TARGETS, Target, scratch


@TARGETS.register("baseline-file")
class BaselineFile(Target):
    name: ClassVar = "baseline-file"
    executions: ClassVar = 1_000
    tokens: ClassVar = (
        '"arms":',
        '"trials":',
        '"metrics":',
        '"does":',
        '"left_out":',
        '"lost":',
        '"seed":',
        '"baseline": 1',
    )

    def seeds(self) -> Iterator[bytes]:
        for path in sorted(GOLDEN.glob("baseline-*.json")):
            yield path.read_bytes()

    def feed(self, data: bytes) -> None:
        path = scratch() / "baseline.json"
        path.write_bytes(data)
        found = read_baseline(path)
        for varies in ((), ("kernel",)):
            try:
                comparison_as_json(
                    compare_runs(found, read_baseline(path), varies=varies, level=0.05, seed=1)
                )
            except BadInputError:
                continue

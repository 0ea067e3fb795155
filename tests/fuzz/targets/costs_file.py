"""Costs files of `model calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.model.cost import SHIPPED
from orchestrator.store.costs_file import AssumedRate, CostsFile, Counted, Measured, is_costs, read_costs
from targets.base import TARGETS, Target, scratch


@TARGETS.register("costs-file")
class CostsFiles(Target):
    name: ClassVar = "costs-file"
    executions: ClassVar = 20_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        '"low":',
        '"high":',
        '"unit":',
        '"instructions":',
        '"assumed_rate":',
        '"hertz":',
        '"boots":',
    )

    def seeds(self) -> Iterator[bytes]:
        measured = {
            cost.name: Measured(low=1, typical=2, high=3, unit=cost.unit, samples=5, how="by hand")
            for cost in SHIPPED
        }
        counted = {"free_seconds": Counted(low=-1, typical=2, high=3, boots=5, of="a less b")}
        rate = AssumedRate(instructions_per_cycle=1, hertz=2e9)
        for costs, instructions in ((measured, {}), ({}, counted)):
            yield (
                CostsFile(
                    measured_at="2026-01-01",
                    conditions={"cpu": "a"},
                    costs=costs,
                    missing={"x": "why"},
                    instructions=instructions,
                    assumed_rate=rate if instructions else None,
                )
                .model_dump_json()
                .encode()
            )

    def feed(self, data: bytes) -> None:
        path = scratch() / "costs.json"
        path.write_bytes(data)
        is_costs(path)
        found = read_costs(path)
        found.as_costs()
        found.as_instructions()

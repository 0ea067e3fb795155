"""Files of `model overcommit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.scenario.overcommit import load_overcommit
from targets.base import ROOT, TARGETS, Target, scratch


@TARGETS.register("overcommit-yaml")
class OvercommitYaml(Target):
    name: ClassVar = "overcommit-yaml"
    executions: ClassVar = 1_000
    most_bytes: ClassVar = 4_000
    tokens: ClassVar = (
        "host:",
        "guests:",
        "phases:",
        "memory: 1EiB",
        "tick: 1ns",
        "at_most:",
        "seeds:",
        "&a",
        "*a",
    )

    def seeds(self) -> Iterator[bytes]:
        for path in sorted((ROOT / "scenarios" / "overcommit").glob("*.yaml")):
            yield path.read_bytes()

    def feed(self, data: bytes) -> None:
        path = scratch() / "overcommit.yaml"
        path.write_bytes(data)
        text = load_overcommit(path)
        list(text.choices)
        assert text.question.guests

"""Definitions of guests: guests/*.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.guest.definition import load_definition
from targets.base import ROOT, TARGETS, Target, scratch


@TARGETS.register("guest-yaml")
class GuestYaml(Target):
    name: ClassVar = "guest-yaml"
    executions: ClassVar = 2_000
    most_bytes: ClassVar = 3_000
    tokens: ClassVar = (
        "kernels:",
        "suite:",
        "also_suites:",
        "packages:",
        "disk: 1EiB",
        "initrd_modules:",
        "boot_timeout:",
    )

    def seeds(self) -> Iterator[bytes]:
        for path in sorted((ROOT / "guests").glob("*.yaml")):
            yield path.read_bytes()

    def feed(self, data: bytes) -> None:
        path = scratch() / "fuzzed-guest.yaml"
        path.write_bytes(data)
        definition = load_definition(path)
        assert definition.default_kernel in definition.kernels
        assert definition.baked_in

"""Policies of `reclaim --policy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.levers import LEVERS
from orchestrator.reclaim.policy import load_policy
from targets.base import TARGETS, Target, scratch

_HEAD = "version: 1\nlever: {}\ndomains: all\nreclaimable_at_least: 64MiB\npause: 10min\njournal: /j\n"


@TARGETS.register("policy-yaml")
class PolicyYaml(Target):
    name: ClassVar = "policy-yaml"
    executions: ClassVar = 600
    most_bytes: ClassVar = 2_000
    tokens: ClassVar = (
        "parameters:",
        "most_stalled:",
        "psi_some_avg10_at_least:",
        "settle:",
        "domains: ['[a']",
    )

    def seeds(self) -> Iterator[bytes]:
        for name in LEVERS.names():
            yield _HEAD.format(name).encode()
        yield (
            _HEAD.format("collapse") + "parameters: {most_stalled: 5}\npsi_some_avg10_at_least: 2\n"
        ).encode()
        yield _HEAD.format("flush").replace("all", "[web-*, 'db[12]']").encode()

    def feed(self, data: bytes) -> None:
        path = scratch() / "policy.yaml"
        path.write_bytes(data)
        policy, _ = load_policy(path)
        for name in ("a", "web-1", "[", "\n" * 200):
            policy.covers(name)

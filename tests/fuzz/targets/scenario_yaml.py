"""Scenarios: read, checked, planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.errors import BadInputError
from orchestrator.plan import Plan, make_plan
from orchestrator.scenario import load_scenario
from targets.base import ROOT, TARGETS, Target, scratch


@TARGETS.register("scenario-yaml")
class ScenarioYaml(Target):
    name: ClassVar = "scenario-yaml"
    executions: ClassVar = 200
    most_bytes: ClassVar = 6_000
    tokens: ClassVar = (
        *("version: 1", "arms:", "steps:", "matrix:", "expect:", "repeats:", "seed:", "boots:", "kernel:"),
        *("- plug: {size: 1GiB}", "- unplug: {to: 0}", "- wait: 5s", "- exec: [a]", "machine:", "template:"),
        *("&a", "*a", "<<: *a", "!!python/object", "? ", "{x}", "${", "---", "...", "%YAML 1.1"),
    )

    def seeds(self) -> Iterator[bytes]:
        for path in sorted((ROOT / "scenarios").glob("*.yaml")):
            if path.stat().st_size < self.most_bytes:
                yield path.read_bytes()

    def feed(self, data: bytes) -> None:
        path = scratch() / "scenario.yaml"
        path.write_bytes(data)
        scenario = load_scenario(
            path,
            kernels_of=lambda _guest: ("6.12", "7.x"),
            workloads=ROOT / "workloads",
            available_bytes=8 << 30,
            to_run=True,
        )
        if scenario.body.repeats * len(scenario.arms) > 2_000:
            return  # as many trials as it asks for; no more of them is learned here
        plan = make_plan(scenario)
        text = plan.to_json()
        try:
            again = Plan.from_json(text)
        except BadInputError as error:
            raise AssertionError(f"a plan cannot be read back: {error.details[:300]}") from error
        assert again.sha256 == plan.sha256, "a plan is another one when it is read back"

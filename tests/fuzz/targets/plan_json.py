"""Plans as `trial` and `gather` take them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import ClassVar

from orchestrator.errors import BadInputError
from orchestrator.plan import Plan, make_plan
from orchestrator.scenario import load_scenario
from targets.base import ROOT, TARGETS, Target, scratch

SCENARIO = """\
version: 1
name: fuzzed
guest: debian-13
repeats: 1
arms: {a: {kernel: '6.12'}, b: {kernel: 7.x}}
steps:
  - plug: {to: 512MiB}
  - start: {workload: sparse-map}
  - unplug: {to: 0MiB}
machine: {memory: 1GiB, virtio_mem: {size: 1GiB}}
"""


@cache
def a_plan() -> Plan:
    """A small plan."""
    path = scratch() / "planned.yaml"
    path.write_text(SCENARIO)
    return make_plan(load_scenario(path, kernels_of=lambda _: ("6.12", "7.x"), workloads=ROOT / "workloads"))


@TARGETS.register("plan-json")
class PlanJson(Target):
    name: ClassVar = "plan-json"
    executions: ClassVar = 15_000
    tokens: ClassVar = (
        '"id":',
        '"../x"',
        '"arm":',
        '"steps":',
        '"action":',
        '"params":',
        '"files":',
        '"expect":',
    )

    def seeds(self) -> Iterator[bytes]:
        yield a_plan().to_json().encode()
        yield a_plan().trial(a_plan().trials[0].id).to_json().encode()

    def feed(self, data: bytes) -> None:
        plan = Plan.from_json(data)
        for trial in plan.trials[:3]:
            try:
                spec = plan.trial(trial.id)
                for step in spec.steps:
                    step.load()
            except BadInputError:
                continue

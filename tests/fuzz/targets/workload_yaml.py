"""Parameters of workloads: workload.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.workloads.base import load_workload
from orchestrator.workloads.program import ProgramDriver
from targets.base import ROOT, TARGETS, Target, scratch


@TARGETS.register("workload-yaml")
class WorkloadYaml(Target):
    name: ClassVar = "workload-yaml"
    executions: ClassVar = 1_000
    most_bytes: ClassVar = 2_000
    tokens: ClassVar = (
        "driver:",
        "malloc_conf:",
        "expects:",
        "options:",
        "span: 1EiB",
        "oom_score_adj:",
        "pieces:",
    )

    def seeds(self) -> Iterator[bytes]:
        for path in sorted((ROOT / "workloads").glob("*/workload.yaml")):
            yield path.read_bytes()

    def feed(self, data: bytes) -> None:
        folder = scratch() / "fuzzed-workload"
        folder.mkdir(exist_ok=True)
        (folder / "workload.yaml").write_bytes(data)
        driver = load_workload(folder)
        if isinstance(driver, ProgramDriver):
            # What gets to the guest is a list of words without a NUL, which no argv can have.
            words = [*driver.argv(7), *(f"{key}={value}" for key, value in driver.variables().items())]
            assert all(isinstance(word, str) for word in words)

"""Every way of taking memory beside virtio-mem, on a real guest: what it says, and when what came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Orchestrator

from orchestrator.units import MIB

SCENARIO = """\
version: 1
name: mechanisms
guest: debian-13
kernel: "6.12"
start: cold
machine: {vcpus: 2, memory: 1GiB, dimms: [256MiB, 256MiB]}
setup: {online_policy: auto-movable, auto_movable_ratio: 200}
arms: {only: {}}
steps:
  - plug_dimm:
  - snapshot: {label: plugged}
  - offline: {by: 256MiB}
  - online:
  - start: {workload: tmpfs, set: {amount: 256MiB}}
  - stop: {workload: tmpfs}
  - report_free: {timeout: 60s}
  - inflate: {by: 128MiB}
  - deflate:
  - unplug_dimm: {timeout: 60s}
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`step.end` of each action."""
    folder = tmp_path_factory.mktemp("mechanisms")
    orchestrator = Orchestrator(folder / "results")
    scenario = folder / "mechanisms.yaml"
    scenario.write_text(SCENARIO)
    finished = orchestrator.run(scenario, "--json")
    assert finished.code == 0, finished.err
    (trial,) = (Path(finished.json["directory"]) / "trials").iterdir()
    events = [json.loads(line) for line in (trial / "events.jsonl").read_text().splitlines()]
    blamed = orchestrator.call("blame", str(trial.parent.parent), "--json").json["snapshots"]
    yield {event["action"]: event for event in events if event["event"] == "step.end"} | {"blame": blamed}
    orchestrator.close()


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("plug_dimm", 512 * MIB),
        ("offline", 256 * MIB),
        ("online", 256 * MIB),
        ("inflate", 128 * MIB),
        ("deflate", 128 * MIB),
        ("unplug_dimm", 512 * MIB),
    ],
)
def test_what_movable_memory_gives(steps: dict[str, Any], action: str, asked: int) -> None:
    step = steps[action]
    assert step["outcome"] == "done", step
    assert step["values"]["requested_bytes"] == step["values"]["achieved_bytes"] == asked
    assert step["requested_ns"] <= step["acknowledged_ns"] <= step["settled_ns"]
    curve = step["curve"]
    assert curve[0] == [0, 0]
    assert curve[-1][1] == asked
    assert [point[0] for point in curve] == sorted(point[0] for point in curve)
    assert step["takes_memory"] is (action in {"offline", "inflate", "unplug_dimm"})


def test_dimms_are_blamed_by_linux_memory_blocks(steps: dict[str, Any]) -> None:
    (snapshot,) = steps["blame"]
    regions = {region["region"]: region for region in snapshot["regions"]}
    assert {name: (one["blocks"], one["block_bytes"]) for name, one in regions.items()} == {
        "dimm0": (2, 128 * MIB),
        "dimm1": (2, 128 * MIB),
    }
    assert all(one["blocks_plugged"] == 2 for one in regions.values())


def test_free_page_reporting_gives_memory_back_to_the_host(steps: dict[str, Any]) -> None:
    """What was free before the step began was reported already, and a guest just booted goes on touching
    and freeing pages: nothing is certain but that it says how it ended, and that this is so."""
    step = steps["report_free"]
    last_seconds = step["curve"][-1][0]
    if step["outcome"] == "timeout":  # within 60 s, it never kept still for 5 s
        assert last_seconds >= 55.0
    else:
        assert step["outcome"] in {"done", "partial", "refused"}
        if len(step["curve"]) > 1:  # else it never moved
            assert (step["settled_ns"] - step["requested_ns"]) / 1e9 == pytest.approx(last_seconds, abs=0.001)
    assert step["values"]["achieved_bytes"] == step["curve"][-1][1]
    assert step["values"]["requested_bytes"] <= step["values"]["guest_free_bytes"]

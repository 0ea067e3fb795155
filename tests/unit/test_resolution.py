"""How finely memory that was unplugged can be known follows from what took it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.stats import FEWEST, Significance
from orchestrator.summary import CATALOGUE, METRIC, resolution_of
from orchestrator.units import GIB, MIB
from orchestrator.verdict import ArmFigures, RunFigures, TrialFigures, compare_arms

ACHIEVED = METRIC["unplug_achieved_bytes"]
PLUG: dict[str, Any] = {"action": "plug", "params": {"to": GIB}}
UNPLUG: dict[str, Any] = {"action": "unplug", "params": {"to": 0}}
UNPLUG_DIMM: dict[str, Any] = {"action": "unplug_dimm", "params": {}}
OFFLINE: dict[str, Any] = {"action": "offline", "params": {"by": 256 * MIB}}
SMALL: dict[str, Any] = {"size": 2 * GIB, "block": 2 * MIB}
LARGE: dict[str, Any] = {"size": 2 * GIB, "block": 256 * MIB}


def does(machine: dict[str, Any], *steps: dict[str, Any]) -> dict[str, str]:
    return {"machine": json.dumps({"memory": GIB, **machine}), "steps": json.dumps(steps)}


@pytest.mark.parametrize(
    ("machine", "steps", "size"),
    [
        ({"virtio_mem": SMALL}, [PLUG, UNPLUG], 2 * MIB),
        ({"virtio_mem": LARGE}, [PLUG, UNPLUG], 256 * MIB),
        ({"dimms": [512 * MIB, 512 * MIB]}, [{"action": "plug_dimm", "params": {}}, UNPLUG_DIMM], 512 * MIB),
        ({"dimms": [256 * MIB, 384 * MIB]}, [UNPLUG_DIMM], 128 * MIB),
        ({}, [OFFLINE], 128 * MIB),
        ({"virtio_mem": SMALL}, [UNPLUG, OFFLINE, PLUG], 128 * MIB),
        ({"virtio_mem": SMALL}, [OFFLINE, UNPLUG], 2 * MIB),
        ({}, [{"action": "inflate", "params": {"by": MIB}}], ACHIEVED.resolution),
    ],
)
def test_the_last_mechanism_decides(machine: dict[str, Any], steps: list[dict[str, Any]], size: int) -> None:
    assert resolution_of(ACHIEVED, does(machine, *steps)) == size
    assert resolution_of(METRIC["unplug_shortfall_bytes"], does(machine, *steps)) == size
    for metric in CATALOGUE:
        if not metric.by_block:
            assert resolution_of(metric, does(machine, *steps)) == metric.resolution


@pytest.mark.parametrize("broken", [{}, {"machine": "{}", "steps": "[1]"}, {"machine": "no", "steps": "[]"}])
def test_what_an_older_version_wrote_keeps_the_smallest_there_is(broken: dict[str, str]) -> None:
    assert resolution_of(ACHIEVED, broken) == 2 * MIB


def test_one_dimm_more_in_every_trial_is_no_proof() -> None:
    """All pairs differ by the same one unit: without any spread, only the unit says what chance can do.

    Of five pairs, t is then the root of 5, and p 0.09.
    """

    def verdict(first: dict[str, str], second: dict[str, str], by: int) -> Significance:
        arms = tuple(
            ArmFigures(
                name,
                kernel="7.3",
                accel="tcg",
                does=described,
                trials=tuple(
                    TrialFigures(
                        f"{name}-{repeat}", repeat, 1, f"s.{repeat}", {ACHIEVED.name: float(4 * GIB - less)}
                    )
                    for repeat in range(1, FEWEST + 1)
                ),
            )
            for name, described, less in (("a", first, 0), ("b", second, by))
        )
        figures = RunFigures(run="r", scenario="s", schema_version=1, commit="", arms=arms)
        return compare_arms(figures).pairs[0].metrics[ACHIEVED.name].significance

    blocks, dimms = does({"virtio_mem": SMALL}, UNPLUG), does({"dimms": [128 * MIB] * 4}, UNPLUG_DIMM)
    assert verdict(blocks, blocks, 128 * MIB) is Significance.SIGNIFICANT, "64 blocks"
    assert verdict(dimms, dimms, 128 * MIB) is Significance.NOT_SIGNIFICANT, "one DIMM"
    assert verdict(blocks, dimms, 128 * MIB) is Significance.NOT_SIGNIFICANT, "the coarser of the two decides"
    assert verdict(dimms, dimms, 1024 * MIB) is Significance.SIGNIFICANT

"""Levers on a real KVM's second-level tables: what they free, at which growth, and contents under load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import ROOT, Orchestrator
from ruamel.yaml import YAML

pytestmark = pytest.mark.alone

ARMS = ("flush", "collapse-and-flush")
PAGE_BYTES = 4096


def two_arms(folder: Path) -> Path:
    """scenarios/reclaim.yaml with two of its arms."""
    yaml = YAML()
    text: Any = yaml.load(ROOT / "scenarios" / "reclaim.yaml")
    text["arms"] = {arm: {} for arm in ARMS}
    for step in text["steps"]:
        if "in" in step:
            step["in"] = [arm for arm in ARMS if arm in step["in"]]
    text["steps"] = [step for step in text["steps"] if step.get("in", True)]
    path = folder / "reclaim.yaml"
    yaml.dump(text, path)
    return path


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The ends of the steps of each arm, by action."""
    folder = tmp_path_factory.mktemp("reclaim")
    driver = Orchestrator(folder / "results")
    # Each trial ends with the hash of what was written before, and with a load that read it right throughout.
    finished = driver.run(two_arms(folder), "--repeats", "1", seconds=1800)
    assert finished.code == 0, finished.err
    (directory,) = (folder / "results").iterdir()
    found = {}
    for arm in ARMS:
        events = (directory / "trials" / f"{arm}-01" / "events.jsonl").read_text().splitlines()
        ends = [one for line in events if (one := json.loads(line))["event"] == "step.end"]
        found[arm] = {one["action"]: one for one in ends}
    yield found
    driver.close()


def test_flush_leaves_at_most_a_quarter(steps: dict[str, dict[str, Any]]) -> None:
    end = steps["flush"]["flush"]
    assert (end["outcome"], end["message"]) == ("done", "")
    values = end["values"]
    assert values["second_level_at_once_bytes"] <= 0.25 * values["second_level_before_bytes"]
    assert values["second_level_before_bytes"] >= 300 * PAGE_BYTES, "or there was nothing to free"


def test_after_a_collapse_it_leaves_at_most_a_tenth(steps: dict[str, dict[str, Any]]) -> None:
    collapse, flush = (steps["collapse-and-flush"][action] for action in ("collapse", "flush"))
    assert (collapse["outcome"], flush["outcome"]) == ("done", "done"), collapse["message"]
    before, at_once = collapse["values"], flush["values"]
    assert at_once["second_level_at_once_bytes"] <= 0.10 * before["second_level_before_bytes"]
    assert before["ranges_collapsed"] >= 50


def test_it_takes_at_most_a_hundredth_of_the_memory(steps: dict[str, dict[str, Any]]) -> None:
    values = steps["collapse-and-flush"]["collapse"]["values"]
    assert values["resident_at_once_bytes"] <= 1.01 * values["resident_before_bytes"]
    assert values["filled_bytes"] <= 2 << 20, "as the scenario bounds it"

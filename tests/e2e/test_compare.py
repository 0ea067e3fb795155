"""Two arms that are the same thing, on real guests side by side: nothing may be called different."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Orchestrator, end, wait_for_line

SCENARIO = """\
version: 1
name: same
guest: debian-13
times: ignored
machine: {memory: 512MiB, vcpus: 1, virtio_mem: {size: 256MiB}, balloon: {free_page_reporting: false}}
arms: {one: {}, other: {}}
repeats: 5
steps:
  - plug: {to: 256MiB}
  - exec: {argv: [dd, if=/dev/zero, of=/dev/shm/fill, bs=1M, count=64]}
  - snapshot: {label: loaded}
  - exec: {argv: [rm, /dev/shm/fill]}
  - unplug: {to: 0B, settle: 2s}
  - snapshot: {label: after}
"""


def scenario(folder: Path, text: str = SCENARIO) -> Path:
    path = folder / "same.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orchestrator, Path]]:
    folder = tmp_path_factory.mktemp("same")
    driver = Orchestrator(folder / "results")
    finished = driver.run(scenario(folder), seconds=1200)
    assert finished.code == 0, finished.err
    (directory,) = (folder / "results").iterdir()
    yield driver, directory
    driver.close()


def test_trials_ran_side_by_side_and_times_are_missing(run: tuple[Orchestrator, Path]) -> None:
    _, directory = run
    meta = json.loads((directory / "meta.json").read_text())
    assert meta["trials_at_once"] == 2
    gaps = (directory / "summary_gaps.csv").read_text()
    assert "unplug_seconds,times are ignored" in gaps


def test_two_identical_arms_do_not_differ(run: tuple[Orchestrator, Path]) -> None:
    driver, directory = run
    compared = driver.call("compare", str(directory), "--json", "--level", "0.01")
    assert compared.code == 0, compared.err
    (comparison,) = compared.json["comparisons"]
    (pair,) = comparison["pairs"]
    assert pair["pairing"] == "repeat", "identical arms start from boots of their own"
    assert pair["boots"] == {"base": 5, "arm": 5, "pairs": 5}
    significance = {metric: found["significance"] for metric, found in pair["metrics"].items()}
    assert len(significance) >= 10
    assert "significant" not in significance.values(), significance
    assert "too few boots" not in significance.values()


def test_a_run_keeps_to_itself_as_baseline(run: tuple[Orchestrator, Path], tmp_path: Path) -> None:
    driver, directory = run
    baseline = tmp_path / "baseline.json"
    made = driver.call("baseline", str(directory), "-o", str(baseline))
    assert made.code == 0, made.err
    # One boot is too few to say anything: it says so, and does not pass.
    path = scenario(tmp_path, SCENARIO.replace("repeats: 5", "repeats: 1"))
    held = driver.run(path, "--baseline", str(baseline), "--fail-on", "change", seconds=600)
    assert held.code == 1, held.err
    assert "too few boots to say" in held.out
    assert "baseline: not decided" in held.out


def test_ctrl_c_ends_all_that_run(tmp_path: Path) -> None:
    driver = Orchestrator(tmp_path / "results")
    text = SCENARIO.partition("steps:")[0] + "steps:\n  - wait: {time: 10min}\n"
    log = tmp_path / "log"
    process = driver.start(scenario(tmp_path, text), log)
    for arm in ("one-01", "other-01"):
        wait_for_line(log, f"{arm}: step 1 of 1", 400)
    time.sleep(1)
    assert end(process, signal.SIGINT) == 130, log.read_text()
    shown = driver.show()
    assert shown["status"] == "interrupted"
    assert [trial["outcome"] for trial in shown["trials"]] == ["interrupted", "interrupted"]
    driver.close()

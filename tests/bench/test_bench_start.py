"""From `orchestrator run` to the first command in a guest: from a saved state, and from power-on.

On real guests, so it takes minutes under software emulation.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).parents[2]
SCENARIO = """\
version: 1
name: first-command
guest: debian-13
machine: {memory: 1GiB, vcpus: 2, virtio_mem: {size: 2GiB, block: 2MiB}}
arms: {only: {kernel: "6.12"}}
steps:
  - exec: {argv: ["true"]}
"""
RUN_SECONDS = 600.0


def first_command_seconds(folder: Path, *words: str) -> float:
    """Seconds from the call of `run` until the first command in the guest had ended."""
    scenario = folder / "first-command.yaml"
    scenario.write_text(SCENARIO)
    argv = [sys.executable, "-m", "orchestrator", "run", str(scenario), "--guests-dir", str(ROOT / "guests")]
    began = time.monotonic()
    with subprocess.Popen(
        [*argv, "--results", str(folder / "results"), *words], stdout=subprocess.DEVNULL
    ) as run:
        ended = None
        while ended is None and run.poll() is None and time.monotonic() < began + RUN_SECONDS:
            time.sleep(0.02)
            for events in folder.glob("results/*/trials/*/events.jsonl"):
                if '"step.end"' in events.read_text():
                    ended = time.monotonic()
        assert run.wait(RUN_SECONDS) == 0
    assert ended is not None
    return ended - began


@pytest.mark.guest
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_a_warm_start_takes_a_quarter_of_a_cold_one(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("making", "cold", "warm")}
    for folder in folders.values():
        folder.mkdir()
    first_command_seconds(folders["making"])  # whatever it finds, there is a state behind it
    cold = first_command_seconds(folders["cold"], "--cold")
    warm = benchmark.pedantic(first_command_seconds, args=(folders["warm"],), rounds=1)
    benchmark.extra_info.update(cold_seconds=cold, warm_seconds=warm)
    print(f"\nfirst command after {warm:.1f} s warm, {cold:.1f} s cold")  # noqa: T201  # what a benchmark is for
    assert warm <= cold / 4

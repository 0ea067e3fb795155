"""How much faster a sweep is on two processes than on one, in wall time: on a machine that does nothing else.

tox -e bench -- tests/bench/test_bench_sweep.py
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.guest.cache import cache_dir
from orchestrator.model.cost import CostTable
from orchestrator.scenario.sweep import load_sweep
from orchestrator.sweep import Engine, InProcess, Processes, Row, tasks_of

ROOT = Path(__file__).resolve().parents[2]
LEAST = 1.8  # the start of two interpreters is in it


@pytest.mark.timeout(1800)
def test_two_processes_are_nearly_twice_as_fast(benchmark: BenchmarkFixture) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.fail("two cores are needed to compare")
    tasks = tasks_of(load_sweep(ROOT / "scenarios/sweeps/hosts.yaml"), {"shipped": CostTable.shipped()})
    compiled = cache_dir() / "compiled"

    def timed(engine: Engine) -> tuple[float, dict[int, list[Row]]]:
        began = time.monotonic()
        found = dict(engine.run(tasks))
        return time.monotonic() - began, found

    for _ in InProcess(compiled).run(tasks[:1]):
        pass  # what has to be compiled is in the cache from here on
    one, here = timed(InProcess(compiled))
    two, there = benchmark.pedantic(timed, args=(Processes(compiled, 2),), rounds=1)
    benchmark.extra_info |= {"one": round(one, 2), "two": round(two, 2), "times": round(one / two, 3)}
    assert here == there
    assert one / two >= LEAST

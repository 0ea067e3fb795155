"""How many accesses a second the TLB model translates, CPU time: `tox -e bench`."""

from __future__ import annotations

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.model.tlb import Load, MappedMemory, TlbCounts, count
from orchestrator.model.tlb_access import ACCESSES, access_pattern
from orchestrator.model.tlb_cpu import shipped_cpu
from orchestrator.units import GIB

pytestmark = pytest.mark.benchmark(timer=time.process_time)

ACCESSES_EACH = 1_000_000
LEAST_PER_SECOND = (
    500_000  # a sixth of what it took least on a machine with other work: a loop that is not compiled
)
MEMORY = MappedMemory(64 * GIB, guest_huge=0.5, host_huge=0.5)


@pytest.mark.parametrize("second_level", [False, True], ids=["one-level", "two-levels"])
@pytest.mark.parametrize("name", ACCESSES)
def test_accesses(benchmark: BenchmarkFixture, name: str, *, second_level: bool) -> None:
    """A miss is what takes time: nearly all of uniform accesses, one in 64 of a run through memory."""
    cpu = shipped_cpu("skylake")
    assert cpu

    def translate(accesses: int = ACCESSES_EACH) -> TlbCounts:
        load = Load(access_pattern(name, {}), accesses, warm_up=0)
        return count(cpu, load, MEMORY, 0, second_level=second_level)

    translate(1)  # compiled
    found = benchmark.pedantic(translate, rounds=3)
    assert found.accesses == ACCESSES_EACH
    assert benchmark.stats
    per_second = ACCESSES_EACH / benchmark.stats.stats.median
    benchmark.extra_info.update({"accesses_per_second": per_second, "walks": found.walks})
    assert per_second > LEAST_PER_SECOND

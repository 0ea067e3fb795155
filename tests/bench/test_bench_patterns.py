"""A guest built entry by entry from a pattern, and classified: `tox -e bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.model.guest_tables import GuestTables, build_tables
from orchestrator.model.patterns import pattern_named
from orchestrator.model.policies import OverSnapshot

pytestmark = [pytest.mark.benchmark(timer=time.process_time), pytest.mark.timeout(1800)]

GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[2]
# VmHWM is of the address space that exec() made. ru_maxrss is not: exec() carries into it what the parent had
# (exec_mmap() in fs/exec.c).
_BUILD_AND_SAY_PEAK = """\
import sys
import numpy as np
from orchestrator.model.guest_tables import build_tables
from orchestrator.model.patterns import pattern_named
from orchestrator.model.policies import OverSnapshot
layout = pattern_named("dense", {"size": sys.argv[1]}).guest_mappings(np.random.default_rng(0))
OverSnapshot.named("empty").apply(build_tables(layout))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def peak_bytes(size: str) -> int:
    """The most memory that a process of its own has resident which builds and classifies a dense guest."""
    argv = [sys.executable, "-c", _BUILD_AND_SAY_PEAK, size]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


@pytest.mark.parametrize("size", ["6GiB", "60GiB", "600GiB", "6TiB"])
def test_build_and_classify(benchmark: BenchmarkFixture, size: str) -> None:
    """Linear in the size: compare the four. 600 GiB in under 3 s of CPU time and 2 GiB."""
    pattern = pattern_named("dense", {"size": size})
    build_tables(
        pattern_named("dense", {"size": "2MiB"}).guest_mappings(np.random.default_rng(0))
    )  # compiled

    def build() -> GuestTables:
        guest = build_tables(pattern.guest_mappings(np.random.default_rng(0)))
        OverSnapshot.named("empty").apply(guest)
        return guest

    guest = benchmark.pedantic(build, rounds=3)
    entries = int(guest.tables.present[guest.tables.level == 1].astype(np.int64).sum())
    peak = peak_bytes(size)
    benchmark.extra_info.update({"entries": entries, "peak_bytes": peak})
    if size == "600GiB":
        assert entries == 157_286_400
        assert benchmark.stats
        assert benchmark.stats.stats.max < 3
        assert peak < 2 * GIB


def test_redis_of_600_gib(benchmark: BenchmarkFixture) -> None:
    """26 million tables: 13 billion slots."""
    pattern = pattern_named("redis_churn", {})
    guest = benchmark.pedantic(
        lambda: build_tables(pattern.guest_mappings(np.random.default_rng(0))), rounds=1
    )
    assert guest.table_bytes > 100 * GIB

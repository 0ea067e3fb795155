"""How fast the model's hot loops are: `tox -e bench`. Never part of a timed test."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.model.frames import classify_frames
from orchestrator.model.policies import OverSnapshot, StateView
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tables import decode_tables, needed_tables
from orchestrator.store.snapshot_file import read_snapshot, write_snapshot
from orchestrator.units import GIB, PAGE_BYTES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from synthetic import sparse_guest


@pytest.fixture(scope="module", params=[25_600, 102_400], ids=["50GiB-sparse", "200GiB-sparse"])
def snapshot(request: pytest.FixtureRequest) -> Snapshot:
    """A guest that touched one page in every 2 MiB and let all go."""
    return sparse_guest(tables=request.param, region_gib=2)


def test_classify_frames(benchmark: BenchmarkFixture, snapshot: Snapshot) -> None:
    benchmark.extra_info["frames"] = len(snapshot.flags)
    assert len(benchmark(classify_frames, snapshot)) == len(snapshot.flags)


def test_decode_tables(benchmark: BenchmarkFixture, snapshot: Snapshot) -> None:
    benchmark.extra_info["tables"] = snapshot.tables
    assert len(benchmark(decode_tables, snapshot).pfn) == snapshot.tables


@pytest.mark.parametrize("policy", OverSnapshot.names())
def test_policy(benchmark: BenchmarkFixture, snapshot: Snapshot, policy: str) -> None:
    state = StateView.of(snapshot)
    assert benchmark(OverSnapshot.named(policy).apply, state).policy == policy


def test_snapshot_file(benchmark: BenchmarkFixture, snapshot: Snapshot, tmp_path: Path) -> None:
    def there_and_back() -> Snapshot:
        write_snapshot(tmp_path / "s.npz", snapshot)
        return read_snapshot(tmp_path / "s.npz")

    assert benchmark(there_and_back).tables == snapshot.tables
    benchmark.extra_info["bytes"] = (tmp_path / "s.npz").stat().st_size


@pytest.mark.parametrize("gib", [6, 60, 600])
def test_needed_tables(benchmark: BenchmarkFixture, gib: int) -> None:
    """A dense guest: 2 MiB of last-level tables for each GiB."""
    pages = np.arange(gib * GIB // PAGE_BYTES, dtype=np.int64)
    counts = benchmark.pedantic(needed_tables, args=(pages,), rounds=3)
    assert counts[1] * PAGE_BYTES == gib * 2 << 20

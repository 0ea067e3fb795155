"""How long blame takes, process start included: `tox -e bench`. Never part of a timed test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.model.blame import blame
from orchestrator.model.policies import StateView
from orchestrator.store.snapshot_file import write_snapshot

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from synthetic import REGION_START, sparse_guest

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 393_216  # 1.5 GiB


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain copy of /proc/kpageflags: the plugged part of a guest with 102,400 tables."""
    path = tmp_path_factory.mktemp("dump") / "flags"
    flags = sparse_guest(102_400).flags[REGION_START : REGION_START + FRAMES]
    flags.astype("<u8").tofile(path)
    return path


def test_command_on_a_raw_dump(benchmark: BenchmarkFixture, dump: Path) -> None:
    argv = [sys.executable, "-m", "orchestrator", "blame", str(dump), "--base-pfn", str(REGION_START)]
    benchmark.extra_info["frames"] = FRAMES
    done = benchmark.pedantic(
        lambda: subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT), rounds=5
    )
    assert "page tables" in done.stdout


def test_command_on_a_snapshot(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    write_snapshot(path, sparse_guest(102_400))
    argv = [sys.executable, "-m", "orchestrator", "blame", str(path), "--json"]
    benchmark.extra_info["bytes"] = path.stat().st_size
    done = benchmark.pedantic(
        lambda: subprocess.run(argv, capture_output=True, check=True, cwd=ROOT), rounds=3
    )
    assert b"empty_all_levels" in done.stdout


def test_blame(benchmark: BenchmarkFixture) -> None:
    state = StateView.of(sparse_guest(102_400))
    found = benchmark(blame, state.snapshot, state.blocks[0], state.frames, state.tables)
    assert int(np.sum(found.table_kinds)) > 100_000

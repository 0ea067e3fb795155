"""What `model calibrate` measures, on page tables of real guests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from orchestrator.calibrate import CODECS, calibrate, table_pages
from orchestrator.cli import main
from orchestrator.errors import BadInputError
from orchestrator.model.cost import SHIPPED, CostTable
from orchestrator.store.costs_file import read_costs
from orchestrator.store.snapshot_file import read_snapshot

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "tables"
SNAPSHOTS = sorted(REFERENCE.glob("*.npz"))


def test_pages_are_as_they_were_in_memory() -> None:
    snapshot = read_snapshot(REFERENCE / "6.12-idle.npz")
    pages = table_pages(snapshot)
    words = pages.view("<u8")
    assert words.shape == (len(pages), 512)
    assert len(pages) >= 200
    # Each non-zero entry of a last-level table is there once, at its slot.
    assert np.all(np.count_nonzero(words, axis=1) > 0)
    entries = {
        (int(slot), int(value)) for slot, value in zip(snapshot.entry_slot, snapshot.entry_value, strict=True)
    }
    row, slot = np.nonzero(words)
    assert {(int(s), int(words[r, s])) for r, s in zip(row, slot, strict=True)} <= entries


@pytest.mark.slow
def test_every_cost_is_measured_or_missing_with_a_reason(tmp_path: Path) -> None:
    found = calibrate([read_snapshot(path) for path in SNAPSHOTS], tmp_path)
    assert {cost.name for cost in SHIPPED} == set(found.costs) | set(found.missing)
    assert not set(found.costs) & set(found.missing)
    assert all(found.missing.values())
    ratio = found.costs["compressed_ratio"]
    assert 0 < ratio.low <= ratio.high <= 1
    assert set(CODECS) <= set(found.conditions)
    assert not list(tmp_path.iterdir())
    CostTable.shipped().with_measured(found.as_costs())


def test_zstd_packs_tables_tighter_than_lz4() -> None:
    snapshots = [read_snapshot(path) for path in SNAPSHOTS]
    lz4, zstd = (calibrate(snapshots, None, codec=codec).costs["compressed_ratio"] for codec in CODECS)
    assert zstd.typical < lz4.typical


def test_without_tables_and_disk_nothing_is_measured() -> None:
    found = calibrate([], None)
    assert not found.costs
    assert {cost.name for cost in SHIPPED} == set(found.missing)


def test_a_processs_own_fault_is_a_condition_and_no_cost() -> None:
    found = calibrate([], None)
    assert "fault_seconds" in found.missing
    words = found.conditions["minor_fault"]
    median = re.match(r"median (\d+\.\d\d) µs ", words)
    assert median, words
    assert 0.05 < float(median[1]) < 1000  # it did fault: a write to a page that is mapped takes less
    assert "no VM exit" in words


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such folder"):
        calibrate([], tmp_path / "none")


def test_the_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "costs.json"
    with pytest.raises(SystemExit) as end:
        main(["model", "calibrate", "--snapshot", str(SNAPSHOTS[0]), "-o", str(path)])
    assert end.value.code == 0
    assert "not measured" in capsys.readouterr().out
    assert "compressed_ratio" in read_costs(path).costs

"""Second-level tables: what is needed by the maths, and what a real KVM was measured to keep."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import BadInputError
from orchestrator.model.second_level import needed_bytes
from orchestrator.model.tables import needed_tables
from orchestrator.units import GIB, MIB, PAGE_BYTES
from orchestrator.workloads import load_workload
from orchestrator.workloads.inner_guest import MOMENTS, READINGS

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "reference" / "second-level" / "moments.csv"


@pytest.mark.parametrize("ranges", [1, 70, 512])
def test_a_guest_of_one_gib_needs_a_table_for_each_range_and_a_handful(ranges: int) -> None:
    pages = np.zeros(GIB // PAGE_BYTES, dtype=bool)
    pages[::512][:ranges] = True
    of_ram = int(needed_tables(pages).sum())
    # Beside those for RAM: firmware below 4 GiB has a PTE table and a PMD table of its own.
    assert needed_bytes(ranges, GIB) == (of_ram + 2) * PAGE_BYTES


def test_no_more_ranges_than_there_is_memory() -> None:
    with pytest.raises(ValueError, match="513 ranges"):
        needed_bytes(513, GIB)


def test_the_workload_reports_every_reading_of_every_moment() -> None:
    inner = load_workload(ROOT / "workloads" / "inner-guest")
    assert len(inner.figures) == len(MOMENTS) * len(READINGS)  # type: ignore[attr-defined]  # of a ProgramDriver
    with pytest.raises(BadInputError, match="fill"):
        load_workload(ROOT / "workloads" / "inner-guest", {"fill": "900MiB"})
    with pytest.raises(BadInputError, match="leave"):
        load_workload(ROOT / "workloads" / "inner-guest", {"leave": "2GiB"})


def measured(arm: str) -> list[dict[str, str]]:
    with MEASURED.open() as file:
        rows = [row for row in csv.DictReader(file) if row["trial"].startswith(arm)]
    assert len({row["trial"] for row in rows}) == 3
    return rows


def test_filling_is_foretold() -> None:
    """Host THP never: within 5 % and 64 tables, at every moment on the way up."""
    for row in measured("thp-never"):
        if row["moment"] != "emptied":
            found, needed = int(row["second_level_bytes"]), needed_bytes(int(row["ranges_4k"]), GIB)
            assert abs(found - needed) <= 0.05 * found + 64 * PAGE_BYTES, row


def test_huge_leaves_are_foretold() -> None:
    for row in measured("thp-always"):
        if row["moment"] != "emptied":
            assert int(row["kvm_pages_2m"]) == pytest.approx(int(row["ranges_2m"]), rel=0.1), row


@pytest.mark.parametrize("arm", ["thp-never", "thp-always"])
def test_a_balloon_leaves_tables_that_map_nothing(arm: str) -> None:
    for row in measured(arm):
        if row["moment"] == "emptied":
            needed = needed_bytes(int(row["ranges_4k"]), GIB)
            assert int(row["second_level_bytes"]) >= 2 * needed, row
            assert int(row["second_level_bytes"]) > MIB

"""Second-level tables: what is needed by the maths, and what a real KVM was measured to have."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import summary
from orchestrator.analysis.arms import view_run
from orchestrator.analysis.second_level import reclaimable_bytes
from orchestrator.host.libvirt_domain import LibvirtDomain
from orchestrator.model.second_level import RamRanges, device_pages, needed_bytes
from orchestrator.records.summary import Moment
from orchestrator.stats import FEWEST
from orchestrator.store import open_run
from orchestrator.units import GIB, PAGE_BYTES

PAGES_OF_GIB = GIB // PAGE_BYTES


def needed(pages: Any, huge: Any = False) -> int:
    pages = np.asarray(pages, dtype=np.int64)
    return needed_bytes(pages, np.broadcast_to(np.asarray(huge, dtype=bool), pages.shape)) // PAGE_BYTES


@pytest.mark.parametrize("ranges", [1, 70, 512])
def test_a_table_for_each_range_and_three_above(ranges: int) -> None:
    assert needed(np.arange(ranges) * 512) == ranges + 3


@pytest.mark.slow
def test_a_gib_needs_two_mib_and_what_is_above() -> None:
    assert needed(np.arange(PAGES_OF_GIB)) == 512 + 3
    assert needed(np.arange(3 * PAGES_OF_GIB)) == 3 * 512 + 3 + 2


def test_huge_pages_need_no_last_level_table_but_in_the_first_range() -> None:
    assert needed(np.arange(PAGES_OF_GIB), huge=True) == 1 + 3
    huge = np.ones(PAGES_OF_GIB, dtype=bool)
    huge[512 * 7 : 512 * 8] = False
    assert needed(np.arange(PAGES_OF_GIB), huge) == 2 + 3


def test_nothing_needs_nothing() -> None:
    assert needed([]) == 0


@given(st.sets(st.integers(0, 1 << 20), min_size=1), st.data())
def test_huge_pages_never_need_more(pages: set[int], data: st.DataObject) -> None:
    numbers = np.array(sorted(pages), dtype=np.int64)
    huge = np.array(data.draw(st.lists(st.booleans(), min_size=len(pages), max_size=len(pages))))
    assert needed(numbers, huge) <= needed(numbers) <= len(numbers) * 4


def test_devices_are_counted_by_ranges_of_two_mib() -> None:
    bars = [(0xFDE4_0000, 4096), (0xFE00_0000, 4096), (0xFE00_1000, 4096), (0x38_0000_0000, 16 << 20)]
    found = device_pages(bars, buses=3)
    configuration = [0xB000_0000, 0xB020_0000]  # of three buses
    chipset = [0xFEC0_0000, 0xFEE0_0000, 0xFFFC_0000]
    places = [*configuration, 0xFDE4_0000, 0xFE00_0000, *chipset, 0x38_0000_0000]
    assert (found // 512).tolist() == sorted(place // (2 << 20) for place in places)
    ram, small = np.arange(512, dtype=np.int64), np.zeros(512, dtype=bool)
    # Eight PTE tables; a PMD table each for 2..3 GiB, 3..4 GiB and 224 GiB.
    assert needed_bytes(ram, small, found) - needed_bytes(ram, small) == (8 + 3) * PAGE_BYTES


def test_devices_behind_bridges_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(address: int) -> dict[str, object]:
        return {"type": "memory", "address": address, "size": 4096, "bar": 0}

    behind = [{"regions": [memory(2), {"type": "io", "address": 9, "size": 8, "bar": 1}]}]
    tree = [{"devices": [{"regions": [memory(1)], "pci_bridge": {"devices": behind}}, {"regions": []}]}]
    domain = LibvirtDomain.__new__(LibvirtDomain)
    monkeypatch.setattr(
        domain, "_qmp", lambda command, read: read(json.loads(json.dumps({"query-pci": tree}[command])))
    )
    assert domain.pci_memory() == ([(1, 4096), (2, 4096)], 2)


# What follows reads the committed run of scenarios/second-level.yaml: a real KVM with NPT.
BOTH = ("second_level_bytes", "needed_bytes")
REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "second-level"


def trials(arm: str) -> list[dict[str, Moment]]:
    """For each trial of an arm, its moments by name."""
    found = [one for one in summary.saved(open_run(REFERENCE)) if one.arm == arm]
    assert len({one.state for one in found}) >= FEWEST, "boots"
    assert not any(one.left_out for one in found)
    return [{moment.moment: moment for moment in one.moments} for one in found]


@pytest.mark.parametrize("arm", ["balloon", "unplug"])
@pytest.mark.parametrize("moment", ["booted", "filled"])
def test_on_the_way_up_the_need_is_what_kvm_has(arm: str, moment: str) -> None:
    for one in trials(arm):
        measured, needed = (one[moment].readings[name] for name in BOTH)
        assert measured is not None
        assert needed is not None
        assert abs(measured - needed) <= 4 * PAGE_BYTES


@pytest.mark.parametrize("moment", ["booted", "filled"])
def test_huge_leaves_are_as_many_as_the_host_has_huge_pages(moment: str) -> None:
    for one in trials("balloon-thp"):
        read = one[moment].readings
        assert read["pages_2m"] == pytest.approx(read["huge_ranges"], rel=0.1)


@pytest.mark.parametrize(("arm", "times"), [("balloon", 2.0), ("balloon-thp", 5.0), ("unplug", 1.5)])
def test_what_is_given_back_leaves_tables_behind(arm: str, times: float) -> None:
    for one in trials(arm):
        measured, needed = (one["emptied"].readings[name] for name in BOTH)
        assert measured is not None
        assert needed is not None
        assert measured >= times * needed


@pytest.mark.parametrize("arm", ["balloon", "balloon-thp", "unplug"])
def test_tables_found_by_their_content_are_those_that_the_kernel_counts(arm: str) -> None:
    for one in summary.saved(open_run(REFERENCE)):
        if one.arm != arm:
            continue
        (before,) = (found for found in one.snapshots if found.snapshot == "before")
        (emptied,) = (moment for moment in one.moments if moment.moment == "emptied")
        measured, reclaimable = emptied.readings["second_level_bytes"], reclaimable_bytes(emptied)
        assert measured is not None
        # Two roots, one of them of system management mode, are not counted.
        assert before.second_level_tables == measured / PAGE_BYTES + 2
        assert reclaimable is not None
        (empty,) = (row for row in one.second_level if (row.snapshot, row.policy) == ("before", "empty"))
        assert empty.bytes_freed == pytest.approx(reclaimable, abs=32 * PAGE_BYTES)


def test_an_older_folder_has_a_column_for_each_policy_and_the_same_figures() -> None:
    run = open_run(REFERENCE)
    with (run.directory / "snapshots.csv").open() as file:
        rows = list(csv.DictReader(file))
    policies = ("empty", "empty_all_levels", "zero_page", "lru", "drop")
    expected = {
        (row["trial"], row["snapshot"], policy): int(row[f"second_level_{policy}"])
        for row in rows
        for policy in policies
        if row["second_level_tables"]
    }
    found = {
        (one.trial, row.snapshot, row.policy): row.tables_freed
        for one in summary.saved(run)
        for row in one.second_level
    }
    assert found == expected
    assert expected


@pytest.mark.parametrize("freed", ["balloon-and-slot", "unplug-slots"])
def test_only_a_memory_slot_that_goes_frees_tables(freed: str) -> None:
    run = open_run(REFERENCE.with_name("second-level-levers"))
    view = view_run(run, summary.saved(run))
    assert len(view.arms) == 5
    for arm in view.arms:  # a trial that was lost, or had not settled, does not count
        assert sum(not trial.summary.left_out for trial in arm.trials) >= 4
    for one in (trial.summary for arm in view.arms for trial in arm.trials):
        if one.left_out:
            continue
        at = {moment.moment: moment.readings["second_level_bytes"] for moment in one.moments}
        assert at["filled"] is not None
        assert at["emptied"] is not None
        if one.arm == freed:
            assert at["emptied"] < at["filled"] / 2
        elif one.arm in {"balloon", "reporting", "unplug"}:
            assert at["emptied"] >= at["filled"] * 0.95


@pytest.mark.slow
def test_ranges_say_the_same_as_pages() -> None:
    """Regions of a scan, of which RAM may have millions, against the pages that they stand for."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        cuts = np.unique(rng.integers(0, 600 * 512, 2 * int(rng.integers(1, 900))))
        runs = cuts[: len(cuts) // 2 * 2].reshape(-1, 2)
        huge = np.unique(rng.integers(700, 1400, 50))[:, None] * 512 + (0, 512)
        regions = np.concatenate([np.insert(runs, 2, 0, axis=1), np.insert(huge, 2, 1, axis=1)])
        pages = np.concatenate([np.arange(first, end) for first, end, _ in regions.tolist()])
        is_huge = pages >= 700 * 512
        found = RamRanges.of(rng.permutation(regions))
        assert found.needed_bytes == needed_bytes(pages, is_huge)
        number, present = np.unique(pages // 512, return_counts=True)
        assert found.number.tolist() == number.tolist()
        assert found.present.tolist() == present.tolist()
        full = present[(present >= 500) & (number < 700)]
        assert found.nearly_full(500).tolist() == full.tolist()
    assert RamRanges.of(np.empty((0, 3), np.int64)).needed_bytes == 0


def test_the_first_range_is_never_mapped_by_a_huge_page() -> None:
    both = RamRanges.of(np.array([[0, 1024, 1]]))
    assert both.needed_bytes == needed_bytes(np.arange(1024), np.ones(1024, dtype=bool))

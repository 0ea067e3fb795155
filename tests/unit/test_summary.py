"""Headline metrics: each from where it is said to come from, and a reason for each that is missing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import (
    ARMS,
    BLOCKS,
    GAPS,
    META,
    MIB,
    TABLES,
    plan_json,
    snapshot,
    write_run,
    write_trial,
)

from orchestrator import summary
from orchestrator.actions import ACTIONS
from orchestrator.model.frames import KPF_PGTABLE
from orchestrator.observation import Observation, Origin
from orchestrator.records.events import Mark, SnapshotTaken, StepBegin, StepEnd, TrialBegin
from orchestrator.records.step import StepOutcome, StepResult
from orchestrator.store import RunWriter, TrialWriter, open_run
from orchestrator.store.snapshot_file import write_snapshot
from orchestrator.summary import METRICS, TrialSummary
from orchestrator.summary.snapshots import look_at_snapshots

S = 10**9


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def begin(tmp_path: Path, **meta: object) -> tuple[RunWriter, TrialWriter]:
    writer = RunWriter.create(tmp_path, "r1", plan_json(), {**META, **meta})
    return writer, writer.trial("6.12-01")


def summarised(writer: RunWriter) -> TrialSummary:
    (one,) = summary.summarise_run(open_run(writer.directory))
    assert set(one.metrics) | set(one.gaps) == set(METRICS)
    assert not set(one.metrics) & set(one.gaps)
    assert all(one.gaps.values())
    return one


def read(t: int, source: str, name: str, value: float | None, *, gap: str = "") -> Observation:
    return Observation(t * S, "6.12-01", source, name, value, "count", gap=gap)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_run(tmp_path_factory.mktemp("results"))
    summary.refresh(directory)
    return directory


def test_the_whole_run(whole: Path) -> None:
    old, new = summary.summarise_run(open_run(whole))
    arm = ARMS[0]
    size, kept = BLOCKS * 2 * MIB, arm.kept_blocks * 2 * MIB
    with_tables = arm.kept_tables_only + 4
    assert old.metrics["guest_page_table_bytes_peak"] == old.metrics["guest_page_table_bytes_end"]
    assert old.metrics["guest_page_tables_total"] == with_tables * (TABLES + 1) + 1
    assert old.metrics["guest_page_tables_empty"] == with_tables * TABLES
    assert old.metrics["unplug_requested_bytes"] == size
    assert old.metrics["unplug_achieved_bytes"] == size - kept
    assert old.metrics["unplug_shortfall_bytes"] == kept
    assert old.metrics["unplug_seconds"] == 24.0
    assert old.metrics["unplug_outcome"] == "partial"
    assert old.metrics["balloon_achieved_bytes"] == 120 * MIB
    assert old.metrics["blocks_plugged"] == BLOCKS
    assert old.metrics["blocks_plugged_after"] == arm.kept_blocks
    assert old.metrics["blocks_pinned"] == arm.kept_blocks
    assert old.metrics["blocks_pinned_page_table"] == with_tables
    assert old.metrics["blocks_pinned_page_table_only"] == arm.kept_tables_only
    assert old.metrics["blocks_pinned_slab"] == arm.kept_blocks - arm.kept_tables_only
    assert old.metrics["workload_ops_per_second"] == 5120.5
    assert old.metrics["workload_p99_seconds"] == 0.0042
    assert old.gaps == GAPS
    assert (old.tables_snapshot, old.blocks_snapshot) == ("loaded", "after-unplug")
    assert old.kernel_release == arm.release
    assert new.metrics["guest_page_table_bytes_end"] == ARMS[1].kept_tables_only * 4096


def test_what_is_written_reads_back_the_same(whole: Path) -> None:
    run = open_run(whole)
    computed = summary.summarise_run(run)
    assert summary.saved(run) == computed
    assert summary.load(run) == computed


def test_the_tables_are_plain_csv(whole: Path) -> None:
    first = rows(whole / "summary.csv")[0]
    assert list(first)[:5] == ["run", "trial", "arm", "repeat", "kernel"]
    assert first["kernel"] == "debian-6.12"
    assert first["second_level_bytes"] == ""
    assert first["unplug_requested_bytes"] == str(BLOCKS * 2 * MIB)
    reasons = {(row["trial"], row["metric"]): row["reason"] for row in rows(whole / "summary_gaps.csv")}
    for row in rows(whole / "summary.csv"):
        assert {metric for metric in METRICS if not row[metric]} == {
            m for t, m in reasons if t == row["trial"]
        }


def test_policies_are_never_called_measured(whole: Path) -> None:
    policies = rows(whole / "policies.csv")
    assert {row["origin"] for row in policies} == {Origin.MODELLED.value}
    # Upper tables stay, so bytes are freed and no block is; where nothing is below them, blocks are.
    by_arm = {
        row["trial"]: row for row in policies if row["snapshot"] == "loaded" and row["policy"] == "empty"
    }
    old, new = by_arm["6.12-01"], by_arm["7.3-pt-reclaim-01"]
    assert int(old["bytes_freed"]) == (ARMS[0].kept_tables_only + 4) * TABLES * 4096
    assert int(old["blocks_freed"]) == 0
    assert int(new["blocks_freed"]) == ARMS[1].kept_tables_only
    assert not set(METRICS) & set(policies[0])


def test_peak_end_and_gaps(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path)
    trial.observe([read(1, "guest_meminfo", "PageTables", value) for value in (10.0, 30.0, 20.0)])
    trial.observe([read(2, "host_qemu", "VmPTE", value) for value in (5.0, 9.0, 7.0)])
    trial.observe([read(2, "host_qemu", "VmRSS", value) for value in (5.0, 9.0, 7.0)])
    trial.observe([read(3, "host_pagemap", "second_level_needed_bytes", None, gap="no permission")])
    trial.close()
    one = summarised(writer)
    assert one.metrics["guest_page_table_bytes_peak"] == 30
    assert one.metrics["guest_page_table_bytes_end"] == 20
    assert one.metrics["host_page_table_bytes"] == 9
    assert one.metrics["host_rss_bytes"] == 7
    assert one.gaps["second_level_needed_bytes"] == "no permission"
    assert one.gaps["guest_memmap_bytes"].startswith("no probe read guest_vmstat/nr_memmap")
    assert one.gaps["unplug_seconds"] == "no unplug step ended"
    assert one.gaps["blocks_pinned"] == "no unplug step ended"
    assert one.outcome == "unfinished"


@pytest.mark.parametrize("ending", ["", "_pages"])
def test_struct_pages_under_either_name(tmp_path: Path, ending: str) -> None:
    writer, trial = begin(tmp_path)
    trial.observe([read(1, "guest_vmstat", f"nr_memmap{ending}", value) for value in (2.0, 6.0, 1.0)])
    trial.observe([read(1, "guest_vmstat", f"nr_memmap_boot{ending}", 4.0)])
    trial.close()
    assert summarised(writer).metrics["guest_memmap_bytes"] == 10 * 4096


def test_half_of_the_struct_pages_are_none_of_them(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path)
    trial.observe([read(1, "guest_vmstat", "nr_memmap_pages", 4.0)])
    trial.close()
    assert "guest_memmap_bytes" in summarised(writer).gaps


def test_second_level_is_what_was_added_and_only_where_there_is_one(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path, accel="kvm", second_level="NPT")
    trial.observe([read(0, "host_meminfo/bare", "second_level_bytes", 652.0)])
    trial.observe([read(1, "host_meminfo", "second_level_bytes", value) for value in (1476.0, 2088.0)])
    trial.close()
    assert summarised(writer).metrics["second_level_bytes"] == 2088 - 652
    writer.update_meta(accel="tcg")
    assert summarised(writer).gaps["second_level_bytes"] == "no second level under TCG"


@pytest.mark.parametrize(
    ("others", "counted", "why"),
    [
        (None, 2088.0, "what other guests of the host have was not read"),
        (652.0, 652.0, "the host counts no more than other guests had"),
        (652.0, 100.0, "the host counts no more than other guests had"),
        (0.0, 0.0, "the host counts no more than other guests had"),
        (652.0, None, "the host's kernel does not count it"),
    ],
)
def test_what_is_left_of_the_hosts_count_is_a_guests_or_nothing_is(
    tmp_path: Path, others: float | None, counted: float | None, why: str
) -> None:
    """A guest that runs has tables: 0, or less, is what became of those of others."""
    writer, trial = begin(tmp_path, accel="kvm", second_level="NPT")
    gap = "the host's kernel does not count it"
    for source, value in (("host_meminfo/bare", others), ("host_meminfo", counted)):
        trial.observe([read(1, source, "second_level_bytes", value, gap="" if value is not None else gap)])
    trial.record(Mark(t_ns=2 * S, label="full"))
    trial.close()
    one = summarised(writer)
    assert one.gaps["second_level_bytes"].startswith(why)
    assert one.moments[0].readings["second_level_bytes"] is None
    reasons = {moment.reading: moment.reason for moment in one.moment_gaps}
    assert reasons["second_level_bytes"] == one.gaps["second_level_bytes"]


def test_times_of_trials_side_by_side_are_missing_and_counts_are_not(tmp_path: Path) -> None:
    plan = json.loads(plan_json()) | {"times": "ignored"}
    writer = RunWriter.create(tmp_path, "r1", json.dumps(plan), META)
    with writer.trial("6.12-01") as trial:
        write_trial(trial, ARMS[0])
    one = summarised(writer)
    for metric in ("unplug_seconds", "workload_ops_per_second", "workload_p99_seconds"):
        assert one.gaps[metric] == "times are ignored: trials may run in parallel"
    assert one.metrics["unplug_shortfall_bytes"]


def test_a_clock_that_counts_instructions_has_costs_and_no_times(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path, accel="tcg-icount")
    for number, costs in enumerate(({"touch": 9000.5, "fork": 7.25}, {"touch": 12000.5}), start=1):
        begun = StepBegin(t_ns=number * S, step=number, action="start", describe="start a workload")
        values: dict[str, float] = {
            "ops_per_second": 5.0,
            **{f"{phase}_instructions_per_table": value for phase, value in costs.items()},
        }
        result = StepResult(StepOutcome.DONE, values=values)
        trial.record(begun)
        trial.record(StepEnd.of(begun, number * S + 1, ACTIONS["start"].effect, result, {}))
    trial.close()
    one = summarised(writer)
    assert one.metrics["accel"] == "tcg-icount"
    found = {name: value for name, value in one.metrics.items() if name.endswith("_instructions_per_table")}
    assert found == {"touch_instructions_per_table": 12000.5, "fork_instructions_per_table": 7.25}
    assert one.gaps["munmap_instructions_per_table"] == "no workload counted instructions"
    for metric in ("unplug_seconds", "workload_ops_per_second", "workload_p99_seconds"):
        assert one.gaps[metric] == "the guest's clock counts instructions: it has no times"
    assert one.gaps["second_level_bytes"] == "no second level under TCG"


@pytest.mark.parametrize(
    ("host", "at_once", "bytes_found"),
    [("local", 2, None), ("local", 1, 2088 - 652), ("local", None, 2088 - 652), ("nested", 2, 2088 - 652)],
)
def test_side_by_side_what_a_host_counts_for_all_guests_says_nothing_of_one(
    tmp_path: Path, host: str, at_once: int | None, bytes_found: int | None
) -> None:
    plan = json.loads(plan_json()) | {"times": "ignored", "host": host}
    meta = {**META, "accel": "kvm", "second_level": "NPT", "trials_at_once": at_once}
    writer = RunWriter.create(tmp_path, "r1", json.dumps(plan), meta)
    with writer.trial("6.12-01") as trial:
        trial.observe([read(0, "host_meminfo/bare", "second_level_bytes", 652.0)])
        trial.observe([read(1, "host_meminfo", "second_level_bytes", 2088.0)])
        trial.record(Mark(t_ns=2 * 10**9, label="full"))
    one = summarised(writer)
    assert one.metrics.get("second_level_bytes") == bytes_found
    assert one.moments[0].readings["second_level_bytes"] == bytes_found
    assert ("second_level_bytes" in one.gaps) == (bytes_found is None)


def test_what_a_trial_says_of_its_accelerator_outweighs_the_run(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path, accel="kvm")
    trial.record(TrialBegin(t_ns=0, accel="tcg"))
    trial.close()
    assert summarised(writer).metrics["accel"] == "tcg"


def test_without_a_snapshot_the_image_tells_the_kernel(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path, image={"kernels": {"debian-6.12": "6.12.57-amd64"}})
    trial.close()
    assert summarised(writer).kernel_release == "6.12.57-amd64"


def test_the_last_unplug_counts(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path)
    for number, settled in ((1, 3 * S), (2, None)):
        trial.record(
            StepEnd(
                t_ns=number * S,
                step=number,
                action="unplug",
                mechanism="virtio-mem",
                direction="take",
                outcome="timeout" if settled is None else "done",
                requested_ns=S,
                settled_ns=settled,
                values={
                    "requested_bytes": number * MIB,
                    "achieved_bytes": 0,
                    "shortfall_bytes": number * MIB,
                },
            )
        )
    trial.close()
    one = summarised(writer)
    assert one.metrics["unplug_requested_bytes"] == 2 * MIB
    assert one.metrics["unplug_outcome"] == "timeout"
    assert one.gaps["unplug_seconds"] == "the unplug did not settle"
    assert one.gaps["blocks_pinned"] == "no snapshot with blocks after the unplug"


def test_without_loaded_the_first_snapshot_with_tables_counts(tmp_path: Path) -> None:
    import numpy as np

    writer, trial = begin(tmp_path)
    write_snapshot(trial.snapshots / "early.npz", snapshot("early", ARMS[1], np.random.default_rng(0)))
    (trial.snapshots / "broken.npz").write_bytes(b"PK\x03\x04 torn")
    trial.record(SnapshotTaken(t_ns=1, label="broken", file="snapshots/broken.npz"))
    trial.record(SnapshotTaken(t_ns=2, label="early", file="snapshots/early.npz"))
    trial.record(SnapshotTaken(t_ns=3, label="gone", file="gone.npz"))
    trial.close()
    one = summarised(writer)
    assert one.tables_snapshot == "early"
    assert one.metrics["guest_page_tables_total"] == (ARMS[1].kept_tables_only + 4) + 1


def test_deposited_tables_are_no_empty_ones(tmp_path: Path) -> None:
    import numpy as np

    made = snapshot("loaded", ARMS[0], np.random.default_rng(0))
    spare = np.array([40, 41])  # beside the PUD table, and nothing points at them
    flags = made.flags.copy()
    flags[spare] = 1 << KPF_PGTABLE
    made = replace(
        made,
        flags=flags,
        table_pfn=np.concatenate([spare, made.table_pfn]),
        entry_start=np.concatenate([[0, 0], made.entry_start]),
        deposits_read=False,
    )
    known = replace(
        made, deposited_pfn=spare, deposited_below=made.table_pfn[-2:], deposits_read=True, label="known"
    )
    writer, trial = begin(tmp_path)
    for number, one in enumerate((known, made)):
        write_snapshot(trial.snapshots / f"{number}.npz", one)
        trial.record(SnapshotTaken(t_ns=number, label=one.label, file=f"snapshots/{number}.npz"))
    trial.close()
    facts = look_at_snapshots(open_run(writer.directory).trials[0])
    assert facts[1].tables == facts[0].tables
    assert facts[1].tables_empty == facts[0].tables_empty + 2
    assert [fact.result and fact.result.page_tables_deposited for fact in facts] == [2, None]
    summary.refresh(writer.directory)
    assert "page_tables_deposited" in (writer.directory / "snapshots.csv").read_text().splitlines()[0]


def test_a_snapshot_that_cannot_be_read_is_the_reason(tmp_path: Path) -> None:
    writer, trial = begin(tmp_path)
    trial.record(SnapshotTaken(t_ns=1, label="loaded", file="loaded.npz"))
    trial.close()
    assert "loaded: its file is missing" in summarised(writer).gaps["guest_page_tables_total"]


def test_saved_tables_are_used_only_while_they_cover_the_trials(tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=1, finish=None, snapshots=False)
    summary.refresh(directory)
    with RunWriter(directory, open_run(directory).meta).trial("7.3-pt-reclaim-01") as trial:
        write_trial(trial, ARMS[1], snapshots=False)
    assert [one.trial for one in summary.load(open_run(directory))] == ["6.12-01", "7.3-pt-reclaim-01"]


def test_a_reference_folder_without_trials_keeps_its_figures(whole: Path, tmp_path: Path) -> None:
    tables = ("summary.csv", "summary_gaps.csv", "policies.csv", "snapshots.csv", "blame.csv")
    for name in ("meta.json", "plan.json", *tables):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    assert summary.load(open_run(tmp_path)) == summary.load(open_run(whole))


def test_damaged_tables_are_computed_again(whole: Path, tmp_path: Path) -> None:
    directory = write_run(tmp_path, trials=1, snapshots=False)
    (directory / "summary.csv").write_text("run,trial\nx,6.12-01\n")
    assert summary.load(open_run(directory))[0].metrics["unplug_seconds"] == 24.0

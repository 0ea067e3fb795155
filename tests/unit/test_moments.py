"""Second-level tables at named moments: from a trial's files to the table and the page."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import ARMS, META, plan_json, snapshot

from orchestrator import summary
from orchestrator.analysis.arms import view_run
from orchestrator.analysis.conclusions import conclusions
from orchestrator.analysis.run import RunAnalysis
from orchestrator.analysis.second_level import TreeCell, moment_rows, reclaimable_bytes, tree_table
from orchestrator.cli import main
from orchestrator.model.second_level_counts import SecondLevelCounts, TreeEffectCounts
from orchestrator.observation import Observation, Origin
from orchestrator.records.events import Mark, SnapshotTaken, TrialBegin, TrialEnd
from orchestrator.report.page import build_report
from orchestrator.stats import of_few
from orchestrator.store import RunWriter, TrialWriter, open_run
from orchestrator.store.snapshot_file import write_snapshot

S = 10**9
KIB = 1 << 10
COUNTS = SecondLevelCounts(
    tables=372,
    last_level=361,
    unlinked=42,
    effects={
        "empty": TreeEffectCounts(204, 0, 0, 0),
        "empty_all_levels": TreeEffectCounts(206, 0, 0, 0),
        "zero_page": TreeEffectCounts(210, 6, 0, 0),
        "lru": TreeEffectCounts(300, 96, 0, 0),
        "drop": TreeEffectCounts(361, 157, 0, 0),
        "collapse-and-flush": TreeEffectCounts(372, 65, 101, 2 << 20),
        "of an older version": TreeEffectCounts(1),
    },
)
EMPTIED = (1480, 1490, 1500, 1530, 1540)  # KiB, in each trial


def write_trial(trial: TrialWriter, emptied: int) -> None:
    trial.record(TrialBegin(t_ns=0, accel="kvm"))

    def read(second: int, measured: float, needed: float) -> None:
        rows = (
            ("host_meminfo", "second_level_bytes", measured, Origin.MEASURED),
            ("host_pagemap", "second_level_needed_bytes", needed, Origin.PREDICTED),
            ("host_kvm", "pages_4k", 7.0, Origin.MEASURED),
        )
        trial.observe(
            Observation(second * S, trial.trial_id, source, name, value, "bytes", origin)
            for source, name, value, origin in rows
        )

    others = Observation(0, trial.trial_id, "host_meminfo/bare", "second_level_bytes", 100 * KIB, "bytes")
    trial.observe([others])
    read(10, 824 * KIB, 730 * KIB)
    trial.record(Mark(t_ns=11 * S, label="booted"))
    read(12, (emptied + 100) * KIB, 736 * KIB)
    trial.record(Mark(t_ns=13 * S, label="emptied"))
    read(14, 9e9, 9e9)  # after the mark: another moment
    shot = snapshot("before", ARMS[0], np.random.default_rng(1))
    shot = replace(shot, notes={"second_level": COUNTS.to_json()})
    write_snapshot(trial.snapshots / "before.npz", shot)
    trial.record(SnapshotTaken(t_ns=15 * S, label="before", of="host", file="before.npz"))
    trial.record(TrialEnd(t_ns=16 * S, outcome="completed"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    meta = {**META, "accel": "kvm", "second_level": "NPT"}
    writer = RunWriter.create(tmp_path_factory.mktemp("results"), "r1", plan_json(ARMS[:1], repeats=5), meta)
    for number, emptied in enumerate(EMPTIED, start=1):
        with writer.trial(f"{ARMS[0].name}-{number:02d}") as trial:
            write_trial(trial, emptied)
    writer.finish("completed", 0)
    summary.refresh(writer.directory)
    return writer.directory


def test_a_moment_has_the_last_reading_before_it_without_other_guests(directory: Path) -> None:
    one, *_ = summary.saved(open_run(directory))
    booted, emptied = one.moments
    assert (booted.moment, booted.seconds, emptied.moment) == ("booted", 11.0, "emptied")
    assert booted.readings["second_level_bytes"] == 724 * KIB
    assert booted.readings["needed_bytes"] == 730 * KIB
    assert reclaimable_bytes(booted) == 0.0, "a prediction above what is there leaves nothing to reclaim"
    assert reclaimable_bytes(emptied) == (1480 - 736) * KIB
    assert emptied.readings["pages_4k"] == 7.0
    assert emptied.readings["pages_2m"] is None
    assert summary.summarise_run(open_run(directory))[0].moments == one.moments, "as written, so read back"


def test_a_reading_of_another_moment_does_not_stand_for_one_that_failed(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r1", plan_json(ARMS[:1], repeats=1), META)
    with writer.trial(f"{ARMS[0].name}-01") as trial:
        trial.record(TrialBegin(t_ns=0, accel="kvm"))

        def read(second: int, name: str, value: float | None, gap: str = "") -> None:
            row = Observation(second * S, trial.trial_id, "host_pagemap", name, value, "bytes", gap=gap)
            trial.observe([row])

        for name, value in (("second_level_needed_bytes", 4096.0), ("present_bytes", 8192.0)):
            read(1, name, value)
        trial.record(Mark(t_ns=2 * S, label="filled"))
        read(3, "host", None, "QEMU did not answer")
        trial.record(Mark(t_ns=4 * S, label="emptied"))
        read(5, "present_bytes", 1.0)
        trial.record(Mark(t_ns=6 * S, label="later"))
        trial.record(TrialEnd(t_ns=7 * S, outcome="completed"))
    writer.finish("completed", 0)
    (one,) = summary.summarise_run(open_run(writer.directory))
    assert [moment.readings["needed_bytes"] for moment in one.moments] == [4096.0, None, None]
    assert [moment.readings["present_bytes"] for moment in one.moments] == [8192.0, None, 1.0]


def test_a_column_that_a_table_is_too_old_for_is_a_gap_with_its_reason(
    directory: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(directory, tmp_path / "older")
    with (older / "moments.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    columns = [name for name in table[0] if name != "pages_4k"]
    with (older / "moments.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    one, *_ = summary.saved(open_run(older))
    now, *_ = summary.saved(open_run(directory))
    assert [moment.readings for moment in one.moments] == [
        {**moment.readings, "pages_4k": None} for moment in now.moments
    ]
    (gap, _) = (gap for gap in one.moment_gaps if gap.reading == "pages_4k")
    assert (gap.moment, gap.reason) == (
        "booted",
        "moments.csv is of a version of the program that had no such column",
    )
    assert {*now.moment_gaps} <= {*one.moment_gaps}


def test_a_snapshot_of_the_host_is_none_of_the_guest(directory: Path) -> None:
    one, *_ = summary.saved(open_run(directory))
    assert "guest_page_tables_total" in one.gaps
    (result,) = one.snapshots
    assert (result.of, result.second_level_tables) == ("host", 372)
    rows = {row.policy: row for row in one.second_level}
    assert (rows["lru"].tables_freed, rows["lru"].tables_rebuilt_at_most, rows["lru"].huge_pages) == (
        300,
        96,
        0,
    )
    huge = rows["collapse-and-flush"]
    assert (huge.bytes_freed, huge.huge_pages, huge.bytes_taken_at_most) == (372 * 4096, 101, 2 << 20)
    older = rows["of an older version"]
    assert (older.tables_freed, older.tables_rebuilt_at_most, older.bytes_taken_at_most) == (1, None, None)
    assert {(row.snapshot, row.origin) for row in one.second_level} == {(result.snapshot, "modelled")}
    assert result.injected == ""


def test_the_table_has_medians_and_an_interval_of_the_ratio(directory: Path) -> None:
    run = open_run(directory)
    view = view_run(run, summary.load(run))
    booted, emptied = moment_rows(view)
    assert (booted.first, emptied.first, emptied.trials, emptied.boots) == (True, False, 5, 5)
    assert emptied.measured.text == "1.465 MiB"
    ratios = np.array(EMPTIED) / 736
    interval = of_few(ratios, range(5))
    assert interval is not None
    assert emptied.ratio.text == f"{ratios.mean():.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    table = tree_table(view)
    (tree,) = table.rows
    assert table.policies == tuple(COUNTS.effects)[-1:] + tuple(COUNTS.effects)[:-1], "by what they free"
    assert [name for name, _ in table.explained] == list(table.policies[1:])
    assert tree.tables == "372"
    assert tree.cells[:2] == (TreeCell("4 KiB"), TreeCell("816 KiB", "at most 0 B again"))
    assert tree.cells[-2:] == (
        TreeCell("1.41 MiB", "at most 628 KiB again"),
        TreeCell("1.453 MiB", "at most 260 KiB again", "101 huge pages, at most 2 MiB taken"),
    )


def test_the_page_has_a_column_for_each_series_that_was_read_and_says_why_others_were_not(
    directory: Path,
) -> None:
    table = RunAnalysis.open(directory).moments
    assert [(head.name, head.origin) for head in table.heads] == [
        ("pages_4k", ""),
        ("second_level_bytes", ""),
        ("needed_bytes", "predicted"),
    ]
    assert [(row.moment, row.trials, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("booted", 5, ["7", "724 KiB", "730 KiB"]),
        ("emptied", 5, ["7", "1.465 MiB", "736 KiB"]),
    ]
    assert dict(table.missing)["pages_2m"] == "no probe read host_kvm/pages_2m"


def test_the_answer_names_the_moment_at_which_most_was_kept(directory: Path) -> None:
    run = open_run(directory)
    sentences = conclusions(view_run(run, summary.load(run)))
    (said,) = (one for one in sentences if "second-level" in one)
    assert said.endswith("those needed, at most: 2.0 times with 6.12 (emptied).")


def test_show_and_report_have_it(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", str(directory)])
    text = capsys.readouterr().out
    assert "second-level tables" in text
    assert "emptied" in text
    page = build_report(RunAnalysis.open(directory)).read_text()
    assert "Second-level tables (NPT)" in page
    assert "Second-level tables over time" in page
    assert "Readings at moments" in page
    assert "Second-level tables that each policy would free" in page
    assert "101 huge pages, at most 2 MiB taken" in page
    with pytest.raises(SystemExit):
        main(["show", str(directory), "--json"])
    assert json.loads(capsys.readouterr().out)["trials"]

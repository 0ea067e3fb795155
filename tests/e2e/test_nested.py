"""Second-level tables of a real KVM: a nested host, one guest, one ballooning; and a host that vanishes."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from driver import Orchestrator, wait_for_line

from orchestrator.store.snapshot_file import read_snapshot

SCENARIO = """\
version: 1
name: nested
host: nested
guest: debian-13
kernel: "6.12"
machine: {vcpus: 1, memory: 768MiB, balloon: {free_page_reporting: false}}
arms: {balloon: {host_setup: {thp: never}}}
sample_every: 2s  # a sample takes a good part of a second of an emulated host
steps:
"""
BALLOON = """\
  - mark: {moment: booted}
  - exec: {argv: [dd, if=/dev/zero, of=/dev/shm/fill, bs=1M, count=320], timeout: 5min}
  - mark: {moment: filled}
  - exec: {argv: [rm, /dev/shm/fill]}
  - inflate: {by: 400MiB, settle: 6s}
  - mark: {moment: emptied}
  - snapshot: {label: loaded}
  - snapshot: {label: before, of: host}
  - host_unplug: {to: 0B, settle: 6s}
  - snapshot: {label: host-unplugged, of: host}
"""
TABLE_BYTES = 4096


def scenario(folder: Path, steps: str) -> Path:
    """In a folder with the project's own guests, as written by a user."""
    path = folder / "nested.yaml"
    path.write_text(SCENARIO + steps)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orchestrator, Path, Any]]:
    """One trial with one ballooning: the driver, the run folder, what `show --json` says."""
    folder = tmp_path_factory.mktemp("nested")
    driver = Orchestrator(folder / "results")
    finished = driver.run(scenario(folder, BALLOON), seconds=1500)
    assert finished.code == 0, finished.err
    shown = driver.show()
    (directory,) = (folder / "results").iterdir()
    yield driver, directory, shown
    driver.close()


@pytest.fixture(scope="module")
def samples(run: tuple[Orchestrator, Path, Any]) -> pd.DataFrame:
    """Second-level tables and what is needed, at every sample: columns by name, index in seconds."""
    _, directory, _ = run
    (path,) = directory.glob("trials/*/observations.parquet")
    frame = pd.read_parquet(path)
    wanted = frame[frame["name"].isin(["second_level_bytes", "second_level_needed_bytes", "pages_4k"])]
    table = wanted.pivot_table(index=(wanted["t_ns"] / 1e9).round(), columns="name", values="value")
    return table.dropna()


def moments(directory: Path) -> dict[str, dict[str, float]]:
    with (directory / "moments.csv").open() as file:
        return {
            row["moment"]: {key: float(value) for key, value in row.items() if key.endswith("_bytes")}
            for row in csv.DictReader(file)
        }


def test_it_says_what_translates_and_under_what(run: tuple[Orchestrator, Path, Any]) -> None:
    _, directory, shown = run
    meta = json.loads((directory / "meta.json").read_text())
    assert meta["second_level"] in {"NPT", "EPT"}
    assert "counts are comparable, times are not" in meta["accel_reason"]
    assert meta["host"]["name"] == "root@127.0.0.1"
    assert shown["trials"][0]["metrics"]["accel"] == "kvm"


def test_on_the_way_up_the_prediction_holds_at_every_sample(
    run: tuple[Orchestrator, Path, Any], samples: pd.DataFrame
) -> None:
    _, directory, _ = run
    found = moments(directory)
    (events,) = directory.glob("trials/*/events.jsonl")
    marks = [json.loads(line) for line in events.read_text().splitlines()]
    ends = {one["label"]: one["t_ns"] / 1e9 for one in marks if one["event"] == "mark"}
    filling = samples[(samples.index >= ends["booted"]) & (samples.index <= ends["filled"])]
    assert len(filling) >= 3
    # At the marks as well: the last sample may be a sixth of the filling before its end.
    at_marks = pd.DataFrame([found["booted"], found["filled"]]).rename(
        columns={"needed_bytes": "second_level_needed_bytes"}
    )
    measured, needed = filling["second_level_bytes"], filling["second_level_needed_bytes"]
    # A sample reads the tables first and then which pages are there. While memory only grows, the tables of a
    # sample lie between what the pages of the sample before it need and what those of its own do, however
    # slowly this host reads. At rest they are two tables apart, once four (results/reference/second-level).
    at_rest = 16 * TABLE_BYTES
    assert (measured - needed).max() <= at_rest
    assert (needed.shift(1) - measured).max() <= at_rest
    assert (at_marks["second_level_bytes"] - at_marks["second_level_needed_bytes"]).abs().max() <= at_rest
    measured = pd.concat([measured, at_marks["second_level_bytes"]])
    constant = (measured.max() - measured.min()) / 2
    assert constant >= 3 * at_rest, "320 MiB take 160 tables: what predicts always the same must fail"


def test_a_balloon_leaves_tables_that_map_nothing(run: tuple[Orchestrator, Path, Any]) -> None:
    found = moments(run[1])
    emptied = found["emptied"]
    assert emptied["second_level_bytes"] >= 2 * emptied["needed_bytes"]
    assert emptied["second_level_bytes"] >= found["filled"]["second_level_bytes"]


def test_the_tables_are_found_from_outside_as_many_as_the_kernel_counts(
    run: tuple[Orchestrator, Path, Any],
) -> None:
    """Two independent sources: the content of the host's frames, and its own counter."""
    _, directory, _ = run
    (path,) = directory.glob("trials/*/snapshots/*-before.npz")
    found = json.loads(read_snapshot(path).notes["second_level"])
    counted = moments(directory)["emptied"]["second_level_bytes"] / TABLE_BYTES
    # A root is no table for the counter (tdp_mmu_alloc_sp() and kvm_tdp_mmu_alloc_root(), tdp_mmu.c): one for
    # the guest and one for its system management mode.
    assert found["tables"] - 2 == pytest.approx(counted, abs=2)
    # What maps nothing by content is what is not needed by the page map, within the tables of devices.
    unneeded = counted - moments(directory)["emptied"]["needed_bytes"] / TABLE_BYTES
    assert found["effects"]["empty"]["tables_freed"] == pytest.approx(unneeded, abs=32)


def test_the_host_is_blamed_like_any_guest(run: tuple[Orchestrator, Path, Any]) -> None:
    driver, directory, _ = run
    blamed = driver.call("blame", str(directory), "--snapshot", "before", "--json")
    assert blamed.code == 0, blamed.err
    assert "second_level" in blamed.out, "tables lie in memory that was plugged"
    report = (directory / "report.html").read_text()
    assert "Second-level tables (" in report


def test_a_host_that_is_killed_loses_its_trial_and_nothing_else(
    run: tuple[Orchestrator, Path, Any], tmp_path: Path
) -> None:
    driver, _, _ = run  # the state is there by now
    other = Orchestrator(tmp_path / "results")
    log = tmp_path / "log"
    process = other.start(scenario(tmp_path, "  - wait: {time: 10min}\n"), log)
    try:
        wait_for_line(log, "step 1 of 1", 600)
        (host,) = (
            one
            for one in psutil.process_iter(["name", "cmdline"])
            if (one.info["name"] or "").startswith("qemu-system")
            and any(f"{other.runtime}/" in word for word in one.info["cmdline"] or ())
        )
        time.sleep(4)  # some samples
        os.kill(host.pid, signal.SIGKILL)
        assert process.wait(180) == 3, log.read_text()
    finally:
        process.kill()
        process.wait()
    (trial,) = other.show()["trials"]
    assert trial["outcome"] == "lost"
    assert trial["metrics"]["second_level_needed_bytes"] > 0, "what was sampled is lost"
    assert "host is lost" in log.read_text()
    other.close()
    assert driver.left_behind() == []

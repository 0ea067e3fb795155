"""Rows of the tables of a run that goes on: those of each trial behind the others', which are not read."""

from __future__ import annotations

import csv
import errno
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from synthetic_run import write_run

from orchestrator import summary
from orchestrator.run.execute import add_trial, summarise
from orchestrator.store import Run, RunWriter, open_run
from orchestrator.summary import TrialSummary, add_summary

Trials = list[Callable[[], str]]


@pytest.fixture
def going_on(tmp_path: Path) -> tuple[Path, Trials]:
    """A run of which no trial is there yet; each call has the next one come, and gives its id."""
    run = write_run(tmp_path, repeats=10, snapshots=False)
    away = tmp_path / "away"
    (run / "trials").rename(away)
    (run / "trials").mkdir()

    def comes(trial: str) -> str:
        shutil.move(away / trial, run / "trials" / trial)
        return trial

    planned = [trial.id for trial in open_run(run).planned]
    return run, [partial(comes, trial) for trial in planned]


def tables(run: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in run.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            found[path.name] = list(csv.DictReader(file))
    return found


def writer_of(run: Path) -> RunWriter:
    return RunWriter(run, open_run(run).meta)


def add(run: Path, trial: str) -> None:
    add_trial(writer_of(run), open_run(run).plan, trial)


def test_one_by_one_they_are_the_tables_of_all_at_once(going_on: tuple[Path, Trials]) -> None:
    run, trials = going_on
    summarise(writer_of(run), ())
    for comes in trials:
        add(run, comes())
    one_by_one = {path.name: path.read_bytes() for path in run.glob("*.csv")}
    summary.refresh(run)
    assert one_by_one == {path.name: path.read_bytes() for path in run.glob("*.csv")}
    assert len(tables(run)["summary.csv"]) == len(trials)


def test_in_another_order_they_are_read_in_that_of_the_plan(going_on: tuple[Path, Trials]) -> None:
    run, trials = going_on
    for comes in reversed(trials[:4]):
        add(run, comes())
    planned = [trial.id for trial in open_run(run).planned][:4]
    assert [row["trial"] for row in tables(run)["summary.csv"]] == planned[::-1]
    assert [one.trial for one in summary.load(open_run(run))] == planned


@pytest.mark.slow
def test_what_it_takes_does_not_grow_with_those_that_are_there(going_on: tuple[Path, Trials]) -> None:
    run, trials = going_on
    plan, writer = open_run(run).plan, writer_of(run)
    adding: list[int] = []
    all_at_once: list[int] = []
    for comes in trials:
        trial = comes()
        with peak(adding):
            add_trial(writer, plan, trial)
        with peak(all_at_once):
            summarise(writer, {trial})
    assert max(adding[-5:]) < 1.1 * max(adding[2:7])
    assert max(all_at_once[-5:]) > 1.5 * max(all_at_once[2:7]), "where it does, it is seen"


@contextmanager
def peak(into: list[int]) -> Iterator[None]:
    """Bytes of Python's that were in use at once at the most."""
    tracemalloc.start()
    try:
        yield
        into.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_one_that_has_not_begun_or_does_not_count_is_none(going_on: tuple[Path, Trials]) -> None:
    run, trials = going_on
    add(run, trials[0]())
    before = tables(run)
    add(run, "6.12-10")
    add(run, "no-such-trial")
    assert tables(run) == before


def first_two(run: Path, trials: Trials) -> tuple[Run, list[TrialSummary]]:
    for comes in trials[:2]:
        comes()
    opened = open_run(run)
    return opened, summary.summarise_run(opened)


def test_a_column_that_the_table_has_not_makes_it_anew(going_on: tuple[Path, Trials]) -> None:
    run, (one, two) = first_two(*going_on)
    add_summary(run, replace(one, differs={}, host=""))
    add_summary(run, replace(two, differs={"memory": "1GiB"}, host="h2"))
    first, second = tables(run.directory)["summary.csv"]
    assert (first["memory"], first["host"]) == ("", "")
    assert (second["memory"], second["host"]) == ("1GiB", "h2")
    assert summary.saved(run) == [
        replace(one, differs={}, host=""),
        replace(two, differs={"memory": "1GiB"}, host="h2"),
    ]


def test_a_disk_that_gets_full_leaves_no_half_row(going_on: tuple[Path, Trials]) -> None:
    run, (one, two) = first_two(*going_on)
    add_summary(run, one)
    before = tables(run.directory)
    size = (run.directory / "summary.csv").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))  # a part of the row fits
    try:
        with pytest.raises(OSError, match=str(run.directory)) as raised:
            add_summary(run, two)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert tables(run.directory)["summary.csv"] == before["summary.csv"]
    assert [found.trial for found in summary.load(run)] == [one.trial, two.trial], "they are computed again"


def test_a_link_is_not_followed(going_on: tuple[Path, Trials], tmp_path: Path) -> None:
    run, (one, two) = first_two(*going_on)
    add_summary(run, one)
    elsewhere = tmp_path / "elsewhere.csv"
    table = run.directory / "summary.csv"
    table.rename(elsewhere)
    table.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(OSError, match=r"summary\.csv") as raised:
        add_summary(run, two)
    assert raised.value.errno == errno.ELOOP
    assert elsewhere.read_bytes() == before

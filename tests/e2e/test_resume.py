"""Killed in the middle of a matrix: `resume` runs what is missing, and the tables are a whole run's."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

from driver import Finished, Orchestrator, end, wait_for_line

SCENARIO = """\
version: 1
name: small-matrix
guest: debian-13
machine: {memory: 512MiB, vcpus: 1}
matrix:
  axes:
    online: {plain: , movable: {setup: {online_policy: online_movable}}}
    thp: {never: {setup: {thp: never}}, always: {setup: {thp: always}}}
  exclude: [movable-always]
warm_up: 1
steps:
  - exec: {argv: [cat, /sys/kernel/mm/transparent_hugepage/enabled]}
  - wait: {time: 3s}
"""
TABLES = ("summary.csv", "policies.csv", "snapshots.csv", "blame.csv")


def table(directory: Path, name: str) -> tuple[list[str], list[str]]:
    """Columns of a table, and the trial of each of its rows."""
    with (directory / name).open() as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), [row["trial"] for row in reader]


def test_what_a_killed_run_did_not_do_is_done(orchestrator: Orchestrator, tmp_path: Path) -> None:
    path, log = tmp_path / "small-matrix.yaml", tmp_path / "log"
    path.write_text(SCENARIO)
    whole = orchestrator.run(path, "--json")
    assert whole.code == 0, whole.err
    starts = {trial["start"] for trial in whole.json["trials"]}
    states = {trial["state"] for trial in whole.json["trials"]}
    assert (starts, len(states)) == ({"warm"}, 1), "arms that differ at run time only begin alike"
    assert "" not in states

    killed = orchestrator.start(path, log)
    wait_for_line(log, "(5 of 6", 400)  # three warm-ups and one that counts are done
    wait_for_line(log, "step 2 of 2: wait", 400)
    assert end(killed, signal.SIGKILL) == -signal.SIGKILL
    assert orchestrator.call("clean").code == 0
    directory = Path(orchestrator.show()["directory"])
    done = [
        trial
        for trial in sorted(path.name for path in (directory / "trials").iterdir())
        if "trial.end" in (directory / "trials" / trial / "events.jsonl").read_text()
    ]
    assert len(done) == 4
    before = {trial: (directory / "trials" / trial / "events.jsonl").read_bytes() for trial in done}

    resumed: Finished = orchestrator.call(
        "resume", directory.name, "--results", str(orchestrator.results), "--json"
    )
    assert resumed.code == 0, resumed.err
    for trial, events in before.items():
        assert (directory / "trials" / trial / "events.jsonl").read_bytes() == events, "it was done again"
    assert resumed.err.count(" of 2") >= 2, "two trials were missing"
    assert len(list((directory / "lost").iterdir())) == 1
    assert json.loads((directory / "meta.json").read_text())["status"] == "completed"
    for name in TABLES:
        assert table(directory, name) == table(Path(whole.json["directory"]), name)
    assert len(table(directory, "summary.csv")[1]) == 3, "warm-ups are in no table"
    again = orchestrator.call("resume", directory.name, "--results", str(orchestrator.results))
    assert again.code == 2
    assert "is whole" in again.err

"""Trials as tasks of a real Slurm on this machine: one that it ends, Ctrl-C, a client that is killed.

There are no guests: trials only wait (`played_trial.py`).
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, cluster
from driver import ROOT, Orchestrator, end, wait_for_line

SCENARIO = """\
version: 1
name: waits
guest: debian-13
machine: {vcpus: 1, memory: 256MiB}
times: ignored
arms: {short: , long: }
steps:
  - wait: {time: 10ms}
  - wait: {time: LONG}
    in: long
"""
PATIENCE = 60


@dataclass
class Site:
    """A cluster, the program as users of it call that, and what its nodes run."""

    slurm: Cluster
    driver: Orchestrator
    program: Path

    def begin(self, folder: Path, long: str, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Begin a run whose arm `long` takes that long; where its output goes."""
        scenario, log = folder / "waits.yaml", folder / "log"
        scenario.write_text(SCENARIO.replace("LONG", long))
        argv = ("run", str(scenario), *self.by_slurm(folder), *words)
        return self.driver.begin(*argv, log=log), log

    def by_slurm(self, folder: Path) -> tuple[str, ...]:
        return ("--slurm", "--slurm-command", str(self.program), "--results", str(folder / "results"))

    def states(self, run: Path) -> set[str]:
        """Of all tasks of all arrays of a run."""
        format_ = ("--array", "--states=all", "--noheader", "--format=%T")
        return set(self.slurm.call("squeue", f"--name={run.name}.1,{run.name}.2", *format_).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    program = folder / "orchestrator"
    played = Path(__file__).with_name("played_trial.py")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "unit")])
    argv = ["env", f"PYTHONPATH={paths}", sys.executable, str(played)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    program.chmod(0o755)
    with cluster() as slurm:
        driver = Orchestrator(folder / "results", slurm.into, slurm.environment)
        yield Site(slurm, driver, program)
        driver.close()


@pytest.fixture(scope="module", autouse=True)
def too_long(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], tuple[int, Path, str]]]:
    """A run of which Slurm ends a task at its time limit, which takes a while: its exit code, folder, output.

    Limits are whole minutes; an end that is set by hand is looked at every 30 s (PERIODIC_TIMEOUT).
    """
    folder = tmp_path_factory.mktemp("too-long")
    process, log = site.begin(folder, "600s", "--slurm-option=--comment=of a test", "--json")
    try:
        wait_for_line(log, "trial long-01 (", PATIENCE)
        (run,) = (folder / "results").iterdir()
        job, index = job_of(run), (run / "slurm" / "1" / "trials").read_text().split().index("long-01") + 1
        site.slurm.call("scontrol", "update", f"JobId={job}_{index}", "EndTime=now")
        yield lambda: (process.wait(PATIENCE), run, log.read_text())
    finally:
        process.kill()
        process.wait()


def job_of(run: Path) -> int:
    return int(json.loads((run / "meta.json").read_text())["slurm"]["job"])


def outcomes(run: Path) -> dict[str, str]:
    with (run / "summary.csv").open() as file:
        return {row["trial"]: row["outcome"] for row in csv.DictReader(file)}


def left_in(run: Path) -> set[str]:
    return {path.name for path in (run / "trials").iterdir()}


def test_ctrl_c_cancels_the_array_and_keeps_what_ended(site: Site, tmp_path: Path) -> None:
    process, log = site.begin(tmp_path, "600s")
    wait_for_line(log, "trial short-01: completed", PATIENCE)
    wait_for_line(log, "trial long-01 (", PATIENCE)
    (run,) = (tmp_path / "results").iterdir()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all that runs in it
    assert process.wait(PATIENCE) == 130
    said = log.read_text()
    assert "cancelling the array" in said
    assert f"orchestrator resume {run} --slurm" in said
    # On a busy machine the task of a trial that is there already may not have ended yet.
    assert "CANCELLED" in site.states(run) <= {"COMPLETED", "CANCELLED"}
    assert left_in(run) == {"short-01"}
    assert outcomes(run) == {"short-01": "completed"}


def test_a_client_that_was_killed_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    process, log = site.begin(tmp_path, "3s")
    wait_for_line(log, "trial long-01 (", PATIENCE)
    (run,) = (tmp_path / "results").iterdir()
    job = job_of(run)
    end(process, signal.SIGKILL)
    resumed = site.driver.call("resume", str(run), *site.by_slurm(tmp_path))
    assert resumed.code == 0, resumed.err
    assert outcomes(run) == {"short-01": "completed", "long-01": "completed"}
    assert job_of(run) == job, "nothing was submitted again"


def test_what_slurm_ends_is_named_with_its_reason(
    site: Site, too_long: Callable[[], tuple[int, Path, str]]
) -> None:
    code, run, said = too_long()
    assert code == 3, said
    assert "Slurm: TIMEOUT (TimeLimit) on node" in said
    assert "DUE TO TIME LIMIT" in said, "the end of what the task printed"
    assert site.states(run) == {"COMPLETED", "TIMEOUT"}
    assert left_in(run) == {"short-01"}, "no half of a trial"
    shown: dict[str, Any] = json.loads((run / "meta.json").read_text())
    assert (shown["status"], shown["exit_code"]) == ("failed", 3)
    assert "--comment=of a test" in shown["slurm"]["sbatch"]
    assert not site.driver.left_behind(), "the runtime folders of tasks are gone"

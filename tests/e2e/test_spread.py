"""Real guests on the hosts of a fleet, and as tasks of a Slurm: the table is that of a run on one machine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import cluster
from driver import ROOT, Orchestrator
from fleet_lab import lab_in, until
from spread import SCENARIO, TRIALS, counts

from orchestrator.guest.cache import cache_dir

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root"),
    pytest.mark.fleet,
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "guests.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def here(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the run on this machine alone."""
    alone = Orchestrator(tmp_path_factory.mktemp("alone"))
    finished = alone.run(scenario, seconds=900)
    assert finished.code == 0, finished.err
    (run,) = alone.results.iterdir()
    assert len(counts(run)[1]) == TRIALS
    yield run
    alone.close()


def test_on_three_hosts(scenario: Path, here: Path, tmp_path: Path) -> None:
    with lab_in(tmp_path) as lab:
        lab.head()
        for name in ("h1", "h2", "h3"):
            lab.real_worker(name, cache_dir() / "images")
        words = ["--results", str(lab.results), "--guests-dir", str(ROOT / "guests")]
        spread = lab.call("run", str(scenario), *lab.config(), *words, seconds=900)
        assert spread.code == 0, spread.err
        assert counts(lab.directory()) == counts(here)
        assert set(lab.hosts_of().values()) == {"h1", "h2", "h3"}
        assert all(len(hosts) == 1 for hosts in lab.hosts_of_rounds().values())
        until(lambda: not lab.left(), 30, lambda: str(lab.left()))


def test_as_tasks_of_slurm(scenario: Path, here: Path, tmp_path: Path) -> None:
    program = tmp_path / "orchestrator"
    argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "orchestrator"]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    program.chmod(0o755)
    with cluster() as slurm:
        client = Orchestrator(tmp_path / "results", slurm.into, slurm.environment)
        spread = client.run(scenario, "--slurm", "--slurm-command", str(program), seconds=900)
        assert spread.code == 0, spread.err
        (run,) = client.results.iterdir()
        assert counts(run) == counts(here)
        assert len(slurm.call("squeue", "--array", "--states=COMPLETED", "--noheader").split("\n")) > TRIALS
        client.close()

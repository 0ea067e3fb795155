"""A fleet whose hosts die, lose their network or their disk: trials are done elsewhere, and nothing is left.

Trials have no guest here and only sleep (sleeping_trial.py); the hosts are network namespaces (fleet_lab.py).
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from driver import ROOT, end, runs
from fleet_lab import HEAD, Lab, lab_in, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A head, and three hosts without workers; in the end nothing is left on any."""
    with lab_in(tmp_path) as made:
        made.head()
        yield made
        until(lambda: not made.left(), 30, lambda: str(made.left()))


def outcomes(lab: Lab) -> list[str]:
    """Of the trials in summary.csv."""
    with (lab.directory() / "summary.csv").open() as file:
        return [row["outcome"] for row in csv.DictReader(file)]


def test_a_worker_that_is_killed_loses_its_trials_and_no_others(lab: Lab) -> None:
    for name in ("h1", "h2", "h3"):
        lab.worker(name, seconds=2, wait=False)
    until(lambda: all("does trials for" in lab.said(name) for name in ("h1", "h2", "h3")))
    client = lab.begin(*lab.run_words("--repeats", "2"))
    until(lambda: lab.units("h1"), 180, lambda: lab.said("client"))
    until(lambda: list(lab.cache("h1").glob("fleet/units/*/into/.*/events.jsonl")))
    victim = lab.processes["h1"]
    assert end(victim, signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not lab.units("h1"), 90)
    left = list(lab.cache("h1").glob("fleet/units/*"))
    assert left, "who was killed cleans nothing"
    lab.worker("h1", seconds=2)
    assert not [path for path in left if path.exists()], "the next one does"
    assert client.wait(400) == 0, lab.said("client")
    assert outcomes(lab) == ["completed"] * 6
    meta = lab.meta()
    assert meta["status"] == "completed"
    lost = {line.partition(": ")[0].rpartition("-")[2] for line in meta["lost_trials"]}
    assert lost == {f"{repeat:02d}" for repeat in meta["broken_rounds"]}
    assert all("h1: " in line for line in meta["lost_trials"])
    for repeat, hosts in lab.hosts_of_rounds().items():
        assert len(hosts) == 1 or repeat in lost, "pairs are of one host"
    assert {host for hosts in lab.hosts_of_rounds().values() for host in hosts} >= {"h2", "h3"}


def test_who_is_not_of_the_fleet_is_refused(lab: Lab, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    assert lab.call("fleet", "init", str(strangers)).code == 0
    shutil.copy(lab.fleet / "fleet.toml", strangers / "fleet.toml")
    lab.worker("h1", keys=strangers, wait=False)
    assert lab.processes["h1"].wait(180) == 3
    assert f"who listens at {HEAD} is not of this fleet" in lab.said("h1")
    # One that believes the head is not believed by it.
    shutil.copy(lab.fleet / "ca.pem", strangers / "ca.pem")
    stranger = lab.call("fleet", "status", *lab.config(strangers))
    assert (stranger.code, "does not take" in stranger.err) == (3, True), stranger.err
    for name in ("client.pem", "client.key"):
        (strangers / name).unlink()
    without = lab.call("fleet", "status", *lab.config(strangers))
    assert (without.code, "client.pem: No such file" in without.err) == (2, True), without.err
    # Whoever shows none, by whatever program, is told so by TLS and by nothing else.
    assert _bare(lab) == "TLSV13_ALERT_CERTIFICATE_REQUIRED\n"
    listening = subprocess.run(
        ["ip", "netns", "exec", lab.ns("net"), "ss", "-Hltn"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert [line.split()[3] for line in listening if line] == ["10.77.0.1:8786"]

    second = lab.call("fleet", "head", *lab.config())
    assert (second.code, f"cannot listen at {HEAD}: Address already in use" in second.err) == (3, True), (
        second.err
    )

    lab.worker("h2", SLEEP_COMMIT="0123456789abcdef")
    refused = lab.call(*lab.run_words())
    assert refused.code == 2, refused.err
    assert "h2: commit: 0123456789abcdef, not " in refused.err
    assert not list(lab.results.iterdir()), "nothing was begun"


_SWEEP = """\
version: 1
name: points
overcommit:
  file: {file}
  grid: {{host.memory: [128GiB, 160GiB, 192GiB, 224GiB], guests.redis.entries_per_table: [2, 12]}}
  seeds: 1
"""


def test_a_sweep_on_hosts_is_the_same_to_the_byte_and_outlives_one_of_them(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(_SWEEP.format(file=ROOT / "scenarios" / "overcommit" / "sparse.yaml"))
    names = ("here", "there")
    here, there = ([tmp_path / f"{name}.{kind}" for kind in ("parquet", "html")] for name in names)
    alone = lab.call("model", "sweep", str(path), "--processes", "1", "-o", str(here[0]))
    assert alone.code == 0, alone.err
    for name in ("h1", "h2"):
        lab.worker(name, wait=False)
    until(lambda: all("does trials for" in lab.said(name) for name in ("h1", "h2")))
    client = lab.begin("model", "sweep", str(path), *lab.config(), "-o", str(there[0]))

    def points() -> str:
        return lab.call("fleet", "status", *lab.config()).out

    until(lambda: "point 1 for" in points(), 60, points)
    computing = psutil.Process(lab.processes["h1"].pid).children(recursive=True)
    end(lab.processes["h1"], signal.SIGKILL)
    assert client.wait(180) == 0, lab.said("client")
    assert [one.read_bytes() for one in there] == [one.read_bytes() for one in here]
    assert computing, "it had processes for points"
    until(lambda: not any(runs(one.pid) for one in computing), 30)
    gone = lab.processes["h2"]
    assert end(gone, signal.SIGTERM) == 130
    lab.configure(wait="1s")
    refused = lab.call("model", "sweep", str(path), *lab.config(), "-o", str(there[0]))
    assert (refused.code, "no host has joined" in refused.err) == (3, True), refused.err


_BARE = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.check_hostname = False
with context.wrap_socket(socket.create_connection(("10.77.0.1", 8786), 10)) as tls:
    try:
        print(tls.recv(100))
    except ssl.SSLError as error:
        print(error.reason)
"""


def _bare(lab: Lab) -> str:
    """What a client without a certificate reads."""
    words = [sys.executable, "-c", _BARE, str(lab.fleet / "ca.pem")]
    return subprocess.run(
        ["ip", "netns", "exec", lab.ns("net"), *words], capture_output=True, text=True, timeout=30, check=True
    ).stdout


@pytest.mark.fleet
def test_the_head_is_killed_and_then_the_client(lab: Lab) -> None:
    for name in ("h1", "h2"):
        lab.worker(name, seconds=2)
    client = lab.begin(*lab.run_words("--repeats", "2"))
    until(lambda: len(lab.hosts_of()) > 1 if list(lab.results.glob("*/meta.json")) else False, 180)
    end(lab.processes["net"], signal.SIGKILL)
    assert client.wait(180) == 3, lab.said("client")
    assert "the head of the fleet has gone" in lab.said("client")
    assert lab.meta()["status"] == "failed"
    until(lambda: not lab.units(), 90)
    done = {
        trial: (lab.directory() / "trials" / trial / "unit.json").read_bytes() for trial in lab.hosts_of()
    }
    assert done

    lab.head()
    resume = ["resume", lab.directory().name, "--results", str(lab.results), *lab.config()]
    resume += ["--guests-dir", lab.run_words()[-1]]
    until(lambda: all(lab.said(name).count("does trials for") == 2 for name in ("h1", "h2")))
    again = lab.begin(*resume)
    until(lab.units, 180, lambda: lab.said("client"))
    assert end(again, signal.SIGINT) == 130, lab.said("client")
    assert lab.meta()["status"] == "interrupted"
    until(lambda: not lab.units(), 90)

    last = lab.call(*resume)
    assert last.code == 0, last.err
    assert outcomes(lab) == ["completed"] * 6
    for trial, record in done.items():
        assert (lab.directory() / "trials" / trial / "unit.json").read_bytes() == record, "it was done again"


@pytest.mark.fleet
def test_a_full_disk_and_a_network_that_is_cut(lab: Lab) -> None:
    lab.configure(silent="11s")
    end(lab.processes["net"], signal.SIGTERM)
    lab.head()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600m,mode=0700", "none", str(lab.cache("h2"))], check=True
    )
    lab.stack.callback(subprocess.run, ["umount", str(lab.cache("h2"))], check=False)
    for name in ("h1", "h2", "h3"):
        lab.worker(name, seconds=2)
    # Not even the worker knows: there is room for no trial any more.
    subprocess.run(["mount", "-o", "remount,size=700k", str(lab.cache("h2"))], check=True)
    client = lab.begin(*lab.run_words("--repeats", "2"))
    until(lambda: lab.units("h1"), 180, lambda: lab.said("client"))
    lab.cut(1)
    assert client.wait(400) == 0, lab.said("client")
    assert outcomes(lab) == ["completed"] * 6
    assert set(lab.hosts_of().values()) == {"h3"}
    lost = lab.meta()["lost_trials"]
    assert any("h1: the host has gone" in line for line in lost), lost
    assert any("h2: " in line and "No space left" in line for line in lost), lost
    until(lambda: not lab.units("h1"), 90)
    lab.mend(1)
    until(lambda: lab.said("h1").count("does trials for") == 2, 180, lambda: lab.said("h1"))


@pytest.mark.fleet
def test_a_network_that_is_away_for_a_minute_loses_nothing(lab: Lab) -> None:
    for name in ("h1", "h2"):
        lab.worker(name, seconds=2)
    client = lab.begin(*lab.run_words("--repeats", "4"))
    until(lambda: lab.units("h1"), 180, lambda: lab.said("client"))
    lab.cut(1)
    time.sleep(60)
    assert client.poll() is None, "h1 has trials that have not come"
    lab.mend(1)
    assert client.wait(300) == 0, lab.said("client")
    assert outcomes(lab) == ["completed"] * 12
    assert set(lab.hosts_of().values()) == {"h1", "h2"}
    assert "lost_trials" not in lab.meta()
    assert lab.said("h1").count("does trials for") == 1, "it was away, and is the same worker"

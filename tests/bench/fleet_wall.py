"""Wall times of runs on 1, 2 and 3 hosts of a fleet that share this machine; takes root.

    PYTHONPATH=tests/e2e python tests/bench/fleet_wall.py

Hosts are network namespaces, with TLS between them (tests/e2e/fleet_lab.py). Trials only sleep, or have
guests, which start from boots that each host has saved before. Prints one JSON object: seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from driver import ROOT, Orchestrator, end
from fleet_lab import Lab, lab_in
from spread import SCENARIO, counts

from orchestrator.guest.cache import cache_dir

_HOSTS = ("h1", "h2", "h3")
_SLEEP_SECONDS = 5
# One arm: hosts are given whole rounds, and 30 of them are 10 for each of three.
_SLEEPING = """\
version: 1
name: sleeping
guest: debian-13
accel: tcg
machine: {memory: 512MiB, vcpus: 1}
arms: {only: }
repeats: 30
steps:
  - wait: {time: 1s}
"""


def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o711)
        found = {
            "cores": os.cpu_count(),
            "load_average_before": round(os.getloadavg()[0], 1),
            "sleeping": sleeping(folder / "sleeping"),
            "guests": guests(folder / "guests"),
        }
        sys.stdout.write(json.dumps(found) + "\n")


def sleeping(folder: Path) -> dict[str, float]:
    """30 trials of 5 s."""
    folder.mkdir()
    with lab_in(folder) as lab:
        lab.scenario.write_text(_SLEEPING)
        lab.head()
        return by_hosts(lab, lab.scenario, lambda name: lab.worker(name, seconds=_SLEEP_SECONDS))


def guests(folder: Path) -> dict[str, float]:
    """12 trials of a guest each; `here` is the run on this machine without a fleet."""
    folder.mkdir()
    scenario = folder / "guests.yaml"
    scenario.write_text(SCENARIO)
    alone = Orchestrator(folder / "alone")
    for _ in range(2):  # the first saves the boots
        began = time.monotonic()
        finished = alone.run(scenario)
        seconds = time.monotonic() - began
        assert finished.code == 0, finished.err
    run = max(alone.results.iterdir())
    with lab_in(folder) as lab:
        lab.head()
        for name in _HOSTS:
            lab.real_worker(name, cache_dir() / "images")
        timed(lab, scenario, "first")
        for name in _HOSTS:
            assert end(lab.processes[name], signal.SIGTERM) == 130
        found = by_hosts(lab, scenario, lambda name: lab.real_worker(name, None))
        for path in lab.results.glob("*/*/summary.csv"):
            assert counts(path.parent) == counts(run), path
    alone.close()
    return {"here": round(seconds, 1), **found}


def by_hosts(lab: Lab, scenario: Path, join: Callable[[str], None]) -> dict[str, float]:
    """Seconds from the start of the client to its end, with as many hosts as the key says."""
    found = {}
    for number, name in enumerate(_HOSTS, start=1):
        join(name)
        found[str(number)] = timed(lab, scenario, str(number))
    return found


def timed(lab: Lab, scenario: Path, name: str) -> float:
    words = ["--results", str(lab.results / name), "--guests-dir", str(ROOT / "guests")]
    began = time.monotonic()
    done = lab.call("run", str(scenario), *lab.config(), *words, seconds=1800)
    seconds = time.monotonic() - began
    assert done.code == 0, done.err
    return round(seconds, 1)


if __name__ == "__main__":
    main()

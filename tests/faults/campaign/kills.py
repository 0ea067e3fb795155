"""kill -9 at random moments: what is left after `clean`, and what comes of the run afterwards.

Moments are uniform over the time from the start of the process to its end, as one run without a kill took it.
It goes on where it was: what came of each kill is kept in the result file, as are the seed and the run that
all are held against. What is killed, and what has to come of it, is in `warm_kills` and `cold_kills`.
"""

from __future__ import annotations

import csv
import random
import re
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil

from campaign import leftovers
from campaign.fault import Expected, Fault
from campaign.run import read_result, write_result
from campaign.scene import Scene
from orchestrator.commit import program_commit

RUN_SECONDS = 1800.0
_NO_FAULT = Fault("kill-9", "ourselves", "kill -9", "at random", Expected(-9, None))
# What bootstrap and the orchestrator print, and not what pip and apt do.
_OURS = re.compile(r"bootstrap: |building | *\d+ s ")

# What README's table of the quickstart has, and by how much trials of one arm differ there: tables by page
# tables of background work, blocks and bytes by which pages fall into them (results/reference/quickstart).
TOLERANCES: Mapping[str, float] = {
    "guest_page_table_bytes_end": 1 << 20,
    "guest_page_tables_total": 256,
    "guest_page_tables_empty": 128,
    "unplug_achieved_bytes": 32 << 20,
    "blocks_plugged": 0,
    "blocks_plugged_after": 16,
    "blocks_pinned_page_table": 16,
    "balloon_achieved_bytes": 0,
    "snapshots": 0,
    "trials": 0,
}
Counts = dict[str, dict[str, float]]


@dataclass
class Kill:
    """One kill: `at_seconds` after the start, in what the run printed last, and what came of it."""

    number: int
    at_seconds: float
    doing: str
    had_ended: bool = False
    left: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


One = TypeVar("One", bound=Kill)


class Kills(ABC, Generic[One]):
    """`work` keeps what is needed from call to call, `result` what came of the kills.

    A kind of kills names its key in the result file and its kind of `Kill`, starts what is killed, and looks
    what came of it.
    """

    key: str
    kind: type[One]
    salt = ""  # of its moments

    def __init__(self, work: Path, result: Path, seed: int) -> None:
        self._work, self._result = work, result
        self._spared: set[int] = set()
        leftovers.adopt(self._spared)
        found = read_result(result)[self.key]
        self._all: dict[str, Any] = found if found.get("seed") == seed else {"seed": seed, "kills": []}

    @abstractmethod
    def prepare(self) -> None:
        """Before the run without a kill."""

    @abstractmethod
    def cache(self, folder: Path) -> Path:
        """The cache of a run in `folder`."""

    @abstractmethod
    def start(self, scene: Scene) -> subprocess.Popen[bytes]:
        """Start what is killed; what it prints goes to the scene's log."""

    @abstractmethod
    def look(self, one: One, scene: Scene, before: set[leftovers.Trace]) -> None:
        """What came of it, once it was killed and `clean` was called."""

    @abstractmethod
    def summary(self) -> list[str]:
        """Lines for people."""

    def go_on(self, upto: int, most: int) -> bool:
        """Make kills until `upto` have hit, `most` in this call. Whether all are made, and survived."""
        if "undisturbed" not in self._all:
            self.prepare()
            self._all["undisturbed"] = self._undisturbed()
            self._keep()
        for _ in range(most):
            if len(self.hits) >= upto:
                break
            self._kill()
        wrong = [one for one in self.hits if one["wrong"]]
        said = [f"kill {one['number']} at {one['at_seconds']} s: {'; '.join(one['wrong'])}" for one in wrong]
        leaks = sum(len(one["leaks"]) for one in self.hits)
        head = [f"{len(self.hits)} kills (seed {self._all['seed']})", f"{leaks} leaks after clean"]
        print("\n".join([*head, *self.summary(), *said]))  # noqa: T201  # a program for people
        return len(self.hits) >= upto and not wrong

    @property
    def hits(self) -> list[dict[str, Any]]:
        """Kills of what had not ended."""
        return [one for one in self._all["kills"] if not one["had_ended"]]

    @property
    def counts(self) -> Counts:
        """Of the run that was not killed."""
        counts: Counts = self._all["undisturbed"]["counts"]
        return counts

    def begin(self, scene: Scene) -> subprocess.Popen[bytes]:
        """As `start`; who waits for it reaps it."""
        process = self.start(scene)
        self._spared.add(process.pid)
        return process

    def run(self, scene: Scene) -> int:
        """The exit code of one that is not killed."""
        process = self.begin(scene)
        try:
            return process.wait(RUN_SECONDS)
        finally:
            process.kill()
            process.wait()

    def scene(self, name: str) -> Scene:
        """A new one."""
        folder = self._work / f"{self.key}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Scene(_NO_FAULT, folder, self.cache(folder))

    def close(self, scene: Scene) -> None:
        """Leave nothing of it."""
        for process in leftovers.descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        scene.orchestrator.call("clean", "--results", str(scene.results))
        shutil.rmtree(scene.orchestrator.runtime, ignore_errors=True)
        shutil.rmtree(scene.folder, ignore_errors=True)

    def _undisturbed(self) -> dict[str, Any]:
        scene = self.scene("undisturbed")
        began = time.monotonic()
        code = self.run(scene)
        seconds = time.monotonic() - began
        assert code == 0, scene.said[-2000:]
        assert scene.run is not None
        counts = run_counts(scene.run)
        self.close(scene)
        return {"seconds": round(seconds, 1), "counts": counts}

    def _kill(self) -> None:
        number = len(self._all["kills"]) + 1
        span = self._all["undisturbed"]["seconds"]
        at = random.Random(f"{self._all['seed']}-{self.salt}{number}").uniform(0, span)  # noqa: S311  # no secret
        scene = self.scene(str(number))
        before = leftovers.look(scene.places)
        began = time.monotonic()
        process = self.begin(scene)
        while process.poll() is None and time.monotonic() - began < at:
            time.sleep(0.005)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        ours = [line.strip() for line in scene.said.splitlines() if _OURS.match(line)]
        one = self.kind(number, round(at, 2), ours[-1][-100:] if ours else "nothing printed yet", ended)
        if not ended:
            one.left = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
            cleaned = scene.orchestrator.call("clean", "--results", str(scene.results), seconds=120)
            if cleaned.code != 0:
                one.wrong.append(f"clean ended with code {cleaned.code}: {cleaned.err.strip()[:300]}")
            self.look(one, scene, before)
        self._all["kills"].append({**asdict(one), "commit": program_commit()})
        self._keep()
        self.close(scene)

    def _keep(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_result(self._result, (), **{self.key: {**self._all, "at": at}})


def leaks_of(one: Kill, scene: Scene, before: set[leftovers.Trace]) -> None:
    """Note what there is that was not there before."""
    one.leaks = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
    one.wrong += [f"left after clean: {leak}" for leak in one.leaks]


def run_counts(run: Path) -> Counts:
    """Counts of each arm, of the tables of a run."""
    found: Counts = {}
    with (run / "summary.csv").open() as file:
        for row in csv.DictReader(file):
            arm = found.setdefault(row["arm"], {"trials": 0})
            arm["trials"] += row["outcome"] == "completed"
            arm |= {name: float(row[name]) for name in TOLERANCES if row.get(name)}
    with (run / "snapshots.csv").open() as file:
        for row in csv.DictReader(file):
            arm = next(found[name] for name in found if row["trial"].startswith(f"{name}-"))
            arm["snapshots"] = arm.get("snapshots", 0) + 1
    return found


def differences(counts: Counts, others: Counts) -> list[str]:
    """Where counts are not those of another run, but for what trials of one arm differ by."""
    wrong = [f"arms {sorted(counts)}, not {sorted(others)}"] if counts.keys() != others.keys() else []
    for arm in counts.keys() & others.keys():
        for name, most in TOLERANCES.items():
            one, other = counts[arm].get(name), others[arm].get(name)
            if one is None or other is None or abs(one - other) > most:
                wrong.append(f"{arm}: {name} is {one}, and {other} in a run that was not killed")
    return wrong

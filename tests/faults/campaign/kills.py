"""kill -9 at random moments of a quickstart: what is left after `clean`, and what `resume` makes of it.

Moments are uniform over the time from the start of the process to its end, as one run without a kill took it;
saved guests are there (a warm cache). It goes on where it was: what came of each kill is kept in the result
file, as are the seed and the run that all are held against.
"""

from __future__ import annotations

import csv
import random
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from driver import ROOT

from campaign import leftovers
from campaign.fault import Expected, Fault
from campaign.run import cache_copy, read_result, write_result
from campaign.scene import Scene
from orchestrator.commit import program_commit
from orchestrator.guest.cache import cache_dir

QUICKSTART = ROOT / "scenarios" / "quickstart.yaml"
_RUN_SECONDS = 900.0
_NO_FAULT = Fault("kill-9", "ourselves", "kill -9", "at random", Expected(-9, None))

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
    folder: bool = False
    left: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    opens: bool | None = None
    status: str = ""
    resumed: bool | None = None
    counts: Counts = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Kills:
    """`work` keeps the cache from call to call, `result` what came of the kills."""

    def __init__(self, work: Path, result: Path, seed: int, resumes: int) -> None:
        self._most_resumes = resumes
        self._work, self._result = work, result
        self._spared: set[int] = set()
        leftovers.adopt(self._spared)
        self._cache = cache_copy(cache_dir(), work / "slot-0")
        found = read_result(result)["kills"]
        self._all: dict[str, Any] = found if found.get("seed") == seed else {"seed": seed, "kills": []}

    def go_on(self, upto: int, most: int) -> bool:
        """Make kills until there are `upto` that hit a run, `most` in this call. Whether all are made, and
        survived."""
        if "undisturbed" not in self._all:
            self._measure()
        for _ in range(most):
            if self._hits >= upto:
                break
            self._kill()
        self._say()
        return self._hits >= upto and not any(one["wrong"] for one in self._all["kills"])

    @property
    def _hits(self) -> int:
        return sum(not one["had_ended"] for one in self._all["kills"])

    @property
    def _resumes(self) -> int:
        return sum(one["resumed"] is not None for one in self._all["kills"])

    def _scene(self, name: str) -> Scene:
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Scene(_NO_FAULT, folder, self._cache)

    def _measure(self) -> None:
        """One run that makes the saved guests, and one that is warm and measured."""
        for name in ("first", "undisturbed"):
            scene = self._scene(f"k-{name}")
            began = time.monotonic()
            process = scene.orchestrator.start(QUICKSTART, scene.log)
            self._spared.add(process.pid)
            code = process.wait(_RUN_SECONDS)
            seconds = time.monotonic() - began
            assert code == 0, scene.said[-2000:]
            assert scene.run is not None
            counts = run_counts(scene.run)
            self._close(scene)
        self._all |= {"undisturbed": {"seconds": round(seconds, 1), "counts": counts}}
        self._keep()

    def _kill(self) -> None:
        number = len(self._all["kills"]) + 1
        span = self._all["undisturbed"]["seconds"]
        at = random.Random(f"{self._all['seed']}-{number}").uniform(0, span)  # noqa: S311  # no secret
        scene = self._scene(f"k-{number}")
        before = leftovers.look(scene.places)
        began = time.monotonic()
        process = scene.orchestrator.start(QUICKSTART, scene.log)
        self._spared.add(process.pid)
        while process.poll() is None and time.monotonic() - began < at:
            time.sleep(0.005)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = [line.strip() for line in scene.said.splitlines() if line.strip()]
        one = Kill(number, round(at, 2), lines[-1][-100:] if lines else "nothing printed yet", ended)
        if not ended:
            self._look(one, scene, before)
        self._all["kills"].append({**asdict(one), "commit": program_commit()})
        self._keep()
        self._close(scene)

    def _look(self, one: Kill, scene: Scene, before: set[leftovers.Trace]) -> None:
        words = ("--results", str(scene.results))
        one.left = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
        cleaned = scene.orchestrator.call("clean", *words, seconds=120)
        if cleaned.code != 0:
            one.wrong.append(f"clean ended with code {cleaned.code}: {cleaned.err.strip()[:300]}")
        one.leaks = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
        one.wrong += [f"left after clean: {leak}" for leak in one.leaks]
        one.folder = scene.run is not None
        if scene.run is None:
            return
        shown = scene.orchestrator.call("show", scene.run.name, *words, "--json", seconds=120)
        one.opens = shown.code == 0
        if not one.opens:
            one.wrong.append(f"show ended with code {shown.code}: {shown.err.strip()[:300]}")
            return
        one.status = str(shown.json["status"])
        if one.status == "completed":  # killed while it wrote its report
            again = scene.orchestrator.call("report", scene.run.name, *words, seconds=300)
            if again.code != 0:
                one.wrong.append(f"report ended with code {again.code}: {again.err.strip()[:300]}")
        elif self._resumes < self._most_resumes:
            resumed = scene.orchestrator.call("resume", scene.run.name, *words, seconds=_RUN_SECONDS)
            one.resumed = resumed.code == 0
            if not one.resumed:
                one.wrong.append(f"resume ended with code {resumed.code}: {resumed.err.strip()[-300:]}")
                return
            one.counts = run_counts(scene.run)
            one.wrong += differences(one.counts, self._all["undisturbed"]["counts"])

    def _close(self, scene: Scene) -> None:
        for process in leftovers.descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        scene.orchestrator.call("clean", "--results", str(scene.results))
        shutil.rmtree(scene.orchestrator.runtime, ignore_errors=True)
        shutil.rmtree(scene.folder, ignore_errors=True)

    def _keep(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_result(self._result, kills={**self._all, "at": at})

    def _say(self) -> None:
        kills = [one for one in self._all["kills"] if not one["had_ended"]]
        folders = [one for one in kills if one["folder"]]
        lines = [
            f"{len(kills)} kills (seed {self._all['seed']})",
            f"{sum(len(one['leaks']) for one in kills)} leaks after clean",
            f"{sum(bool(one['opens']) for one in folders)} of {len(folders)} run folders open",
            f"{sum(bool(one['resumed']) for one in kills)} of {self._resumes} resumed to their end",
            *(
                f"kill {one['number']} at {one['at_seconds']} s: {'; '.join(one['wrong'])}"
                for one in kills
                if one["wrong"]
            ),
        ]
        print("\n".join(lines))  # noqa: T201  # a program for people


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

"""kill -9 of README's first command in a new clone, with an empty cache: what does the same command do then?

Moments are uniform over what it takes without a kill: it makes the environment, builds an image, boots guests
and saves them, runs both trials and writes the report. After each kill `clean` is called; then the same
command, in the same clone and with the same cache, has to end with code 0 and the counts of a run that was
not killed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from driver import ROOT

from campaign import leftovers
from campaign.fault import Expected, Fault
from campaign.kills import differences, run_counts
from campaign.run import read_result, write_result
from campaign.scene import Scene
from orchestrator.commit import program_commit

_RUN_SECONDS = 1800.0
_END_SECONDS = 120.0
# What bootstrap and the orchestrator print, and not what pip and apt do.
_OURS = re.compile(r"bootstrap: |building | *\d+ s ")
_NO_FAULT = Fault("kill-9-cold", "ourselves", "kill -9", "at random", Expected(-9, None))


@dataclass
class ColdKill:
    """One kill: `at_seconds` after the start, in what was printed last, and what came of it."""

    number: int
    at_seconds: float
    doing: str
    had_ended: bool
    left: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    again: int | None = None
    wrong: list[str] = field(default_factory=list)


class ColdKills:
    """`work` has a clone, a cache and results for each kill in turn, `result` what came of them."""

    def __init__(self, work: Path, result: Path, seed: int) -> None:
        self._work, self._result = work, result
        self._spared: set[int] = set()
        leftovers.adopt(self._spared)
        found = read_result(result)["cold_kills"]
        self._all: dict[str, Any] = found if found.get("seed") == seed else {"seed": seed, "kills": []}

    def go_on(self, upto: int, most: int) -> bool:
        """Make kills until `upto` have hit, `most` in this call. Whether all are made, and survived."""
        if "undisturbed" not in self._all:
            scene = self._scene("c-undisturbed")
            began = time.monotonic()
            code = self._wait(self._start(scene))
            assert code == 0, scene.said[-2000:]
            seconds = round(time.monotonic() - began, 1)
            assert scene.run is not None
            self._all["undisturbed"] = {"seconds": seconds, "counts": run_counts(scene.run)}
            self._keep()
            self._close(scene)
        for _ in range(most):
            if self._hits >= upto:
                break
            self._kill()
        wrong = [one for one in self._all["kills"] if one["wrong"]]
        for one in wrong:
            said = f"kill {one['number']} at {one['at_seconds']} s: {'; '.join(one['wrong'])}"
            print(said)  # noqa: T201  # a program for people
        print(f"{self._hits} kills of a first run (seed {self._all['seed']}), {len(wrong)} with a fault")  # noqa: T201  # as above
        return self._hits >= upto and not wrong

    @property
    def _hits(self) -> int:
        return sum(not one["had_ended"] for one in self._all["kills"])

    def _scene(self, name: str) -> Scene:
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scene = Scene(_NO_FAULT, folder, folder / "cache")
        # The mirror of packages may be configured in the user's home.
        scene.orchestrator._environment["HOME"] = os.environ["HOME"]
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
        return scene

    def _start(self, scene: Scene) -> subprocess.Popen[bytes]:
        clone = scene.folder / "clone"
        words = ["orchestrator", "run", "scenarios/quickstart.yaml", "--results", str(scene.results)]
        # The environment of these tests is not that of the clone.
        environment = {
            name: value
            for name, value in scene.orchestrator._environment.items()
            if name not in {"VIRTUAL_ENV", "PYTHONPATH"}
        }
        own = f"{Path(sys.executable).parent}{os.pathsep}"
        environment["PATH"] = environment["PATH"].removeprefix(own)
        with scene.log.open("ab") as sink:
            process = subprocess.Popen(
                [str(clone / "bootstrap"), *words],
                cwd=clone,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        self._spared.add(process.pid)
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(_RUN_SECONDS)
        finally:
            process.kill()
            process.wait()

    def _kill(self) -> None:
        number = len(self._all["kills"]) + 1
        span = self._all["undisturbed"]["seconds"]
        at = random.Random(f"{self._all['seed']}-cold-{number}").uniform(0, span)  # noqa: S311  # no secret
        scene = self._scene(f"c-{number}")
        before = leftovers.look(scene.places)
        process, end = self._start(scene), time.monotonic() + at
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        ours = [line.strip() for line in scene.said.splitlines() if _OURS.match(line)]
        one = ColdKill(number, round(at, 2), ours[-1][-100:] if ours else "nothing printed yet", ended)
        if not ended:
            self._look(one, scene, before)
        self._all["kills"].append({**asdict(one), "commit": program_commit()})
        self._keep()
        self._close(scene)

    def _look(self, one: ColdKill, scene: Scene, before: set[leftovers.Trace]) -> None:
        one.left = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
        cleaned = scene.orchestrator.call("clean", "--results", str(scene.results), seconds=120)
        if cleaned.code != 0:
            one.wrong.append(f"clean ended with code {cleaned.code}: {cleaned.err.strip()[:300]}")
        # pip and the like, which bootstrap had started, end by themselves.
        end = time.monotonic() + _END_SECONDS
        while leftovers.descendants() and time.monotonic() < end:
            time.sleep(0.1)
        one.leaks = [str(trace) for trace in leftovers.left(before, leftovers.look(scene.places))]
        one.wrong += [f"left after clean: {leak}" for leak in one.leaks]
        for run in scene.results.glob("*/meta.json"):
            shutil.rmtree(run.parent)
        one.again = self._wait(self._start(scene))
        if one.again != 0:
            one.wrong.append(f"the same again ended with code {one.again}: {scene.said.strip()[-300:]}")
            return
        assert scene.run is not None
        one.wrong += differences(run_counts(scene.run), self._all["undisturbed"]["counts"])

    def _close(self, scene: Scene) -> None:
        for process in leftovers.descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        scene.orchestrator.call("clean", "--results", str(scene.results))
        shutil.rmtree(scene.orchestrator.runtime, ignore_errors=True)
        shutil.rmtree(scene.folder, ignore_errors=True)

    def _keep(self) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_result(self._result, cold_kills={**self._all, "at": at})

"""kill -9 of README's first command in a new clone, with an empty cache: what does the same command do then?

It makes the environment, builds an image, boots guests and saves them, runs both trials and writes the
report. After `clean` the same command, in the same clone and with the same cache, has to end with code 0 and
the counts of a run that was not killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from driver import ROOT

from campaign import leftovers
from campaign.kills import Kill, Kills, differences, leaks_of, run_counts
from campaign.scene import Scene

_END_SECONDS = 120.0


@dataclass
class ColdKill(Kill):
    """The exit code of the same command afterwards."""

    again: int | None = None


class ColdKills(Kills[ColdKill]):
    """Each has a clone and a cache of its own."""

    key, kind, salt = "cold_kills", ColdKill, "cold-"

    def prepare(self) -> None:
        """Nothing: all is made anew."""

    def cache(self, folder: Path) -> Path:
        return folder / "cache"

    def scene(self, name: str) -> Scene:
        made = super().scene(name)
        environment = made.orchestrator._environment
        environment["HOME"] = os.environ["HOME"]  # the mirror of packages may be configured there
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(made.folder / "clone")], check=True)
        return made

    def start(self, scene: Scene) -> subprocess.Popen[bytes]:
        clone = scene.folder / "clone"
        words = ["orchestrator", "run", "scenarios/quickstart.yaml", "--results", str(scene.results)]
        # The environment of these tests is not that of the clone.
        own = {"VIRTUAL_ENV", "PYTHONPATH"}
        environment = {
            name: value for name, value in scene.orchestrator._environment.items() if name not in own
        }
        environment["PATH"] = environment["PATH"].removeprefix(f"{Path(sys.executable).parent}{os.pathsep}")
        with scene.log.open("ab") as sink:
            return subprocess.Popen(
                [str(clone / "bootstrap"), *words],
                cwd=clone,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def look(self, one: ColdKill, scene: Scene, before: set[leftovers.Trace]) -> None:
        # pip and the like, which bootstrap had started, end by themselves.
        end = time.monotonic() + _END_SECONDS
        while leftovers.descendants() and time.monotonic() < end:
            time.sleep(0.1)
        leaks_of(one, scene, before)
        for run in scene.results.glob("*/meta.json"):
            shutil.rmtree(run.parent)
        one.again = self.run(scene)
        if one.again != 0:
            one.wrong.append(f"the same again ended with code {one.again}: {scene.said.strip()[-300:]}")
            return
        assert scene.run is not None
        one.wrong += differences(run_counts(scene.run), self.counts)

    def summary(self) -> list[str]:
        again = sum(one["again"] == 0 for one in self.hits)
        return [f"{again} of {len(self.hits)} times the same command then succeeded"]

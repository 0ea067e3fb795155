"""kill -9 of a quickstart whose guests are saved (a warm cache): its folder opens, and `resume` goes on."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from driver import ROOT

from campaign import leftovers
from campaign.kills import RUN_SECONDS, Counts, Kill, Kills, differences, leaks_of, run_counts
from campaign.run import cache_copy
from campaign.scene import Scene
from orchestrator.guest.cache import cache_dir

QUICKSTART = ROOT / "scenarios" / "quickstart.yaml"


@dataclass
class WarmKill(Kill):
    """Whether there was a run folder by then, whether it opens, and what `resume` made of it."""

    folder: bool = False
    opens: bool | None = None
    status: str = ""
    resumed: bool | None = None
    counts: Counts = field(default_factory=dict)


class WarmKills(Kills[WarmKill]):
    """The first `resumes` of those that were killed are resumed."""

    key, kind = "kills", WarmKill

    def __init__(self, work: Path, result: Path, seed: int, resumes: int) -> None:
        super().__init__(work, result, seed)
        self._most_resumes = resumes
        self._cache = cache_copy(cache_dir(), work / "slot-0")

    def prepare(self) -> None:
        scene = self.scene("first")  # which saves the guests
        code = self.run(scene)
        assert code == 0, scene.said[-2000:]
        self.close(scene)

    def cache(self, folder: Path) -> Path:
        del folder
        return self._cache

    def start(self, scene: Scene) -> subprocess.Popen[bytes]:
        return scene.orchestrator.start(QUICKSTART, scene.log)

    def look(self, one: WarmKill, scene: Scene, before: set[leftovers.Trace]) -> None:
        leaks_of(one, scene, before)
        words = ("--results", str(scene.results))
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
        elif sum(killed["resumed"] is not None for killed in self.hits) < self._most_resumes:
            resumed = scene.orchestrator.call("resume", scene.run.name, *words, seconds=RUN_SECONDS)
            one.resumed = resumed.code == 0
            if not one.resumed:
                one.wrong.append(f"resume ended with code {resumed.code}: {resumed.err.strip()[-300:]}")
                return
            one.counts = run_counts(scene.run)
            one.wrong += differences(one.counts, self.counts)

    def summary(self) -> list[str]:
        folders = [one for one in self.hits if one["folder"]]
        resumed = [one["resumed"] for one in self.hits if one["resumed"] is not None]
        return [
            f"{sum(bool(one['opens']) for one in folders)} of {len(folders)} run folders open",
            f"{sum(resumed)} of {len(resumed)} resumed to their end",
        ]

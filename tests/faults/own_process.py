"""The orchestrator itself stands still, runs out of memory, or loses a worker."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil
from campaign.cgroup import Cgroup
from campaign.fault import Expected, Fault
from campaign.scene import Scene

# Longer than a guest may be silent (SILENCE_SECONDS); a laptop that slept has slept for longer, with nothing
# more happening in it.
STANDSTILL_SECONDS = 100.0

_NO_MEMORY = """\
from orchestrator.guest import snapshot
def take(self, label):
    raise MemoryError
snapshot.SnapshotTaker.take = take
"""
_ALLOCATES = """\
from orchestrator.guest import snapshot
def take(self, label):
    have = []
    while True:
        have.append(bytearray(b"x" * (16 << 20)))
snapshot.SnapshotTaker.take = take
"""
_SIDE_BY_SIDE = """\
times: ignored
arms: {one: {kernel: "6.12"}, two: {kernel: "6.12"}}
"""


def _stand_still(scene: Scene) -> None:
    scene.signal(signal.SIGSTOP)
    time.sleep(STANDSTILL_SECONDS)
    scene.strike_now()
    scene.signal(signal.SIGCONT)


def _kill(scene: Scene) -> None:
    scene.signal(signal.SIGKILL)


def _kill_worker(scene: Scene) -> None:
    end = time.monotonic() + 120
    while True:
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if "orchestrator.run.worker" in words and f"{scene.results}/" in words and " one-" in words:
                os.kill(process.info["pid"], signal.SIGKILL)
                return
        assert time.monotonic() < end, "there is no worker"
        time.sleep(0.1)


def _bound_memory(scene: Scene) -> None:
    assert scene.process is not None
    used = psutil.Process(scene.process.pid).memory_info().rss
    group = Cgroup("memory", "orchestrator-faults")
    group.bound_memory(used + (256 << 20))
    group.add(scene.process.pid)
    scene.facts["cgroup"] = group


def _remove_cgroup(scene: Scene) -> None:
    with suppress(KeyError):
        scene.facts["cgroup"].remove()


def _others_are_whole(scene: Scene) -> None:
    assert scene.run is not None
    assert list(scene.run.glob("trials/two-*/observations.parquet")), "the other trial is not whole"


FAULTS = [
    Fault(
        "orchestrator-stands-still",
        "ourselves",
        f"SIGSTOP, and SIGCONT after {STANDSTILL_SECONDS:.0f} s",
        "step",
        Expected(3, "failed", ("the orchestrator stood still",), 60),
        strike=_stand_still,
    ),
    Fault(
        "killed-in-step",
        "ourselves",
        "kill -9",
        "step",
        Expected(-9, None, (), 10, cleaned=True, status="killed"),
        strike=_kill,
    ),
    Fault(
        "worker-killed",
        "ourselves",
        "a worker is killed; another goes on",
        "step",
        Expected(3, None, ("the process of one-", "ended with code -9"), 240),
        steps=("wait: {time: 20s}",),
        scenario=_SIDE_BY_SIDE,
        moment="step 1 of 1",
        strike=_kill_worker,
        check=_others_are_whole,
    ),
    Fault(
        "no-memory",
        "ourselves",
        "MemoryError",
        "snapshot",
        Expected(3, "failed", ("no more memory",), 60),
        steps=("wait: {time: 3s}", "snapshot: {label: cut}"),
        moment="step 2 of 2",
        inject=_NO_MEMORY,
    ),
    Fault(
        "oom-takes-orchestrator",
        "ourselves",
        "the OOM killer of a cgroup takes the orchestrator",
        "snapshot",
        Expected(-9, None, (), 60, cleaned=True, status="killed"),
        steps=("wait: {time: 3s}", "snapshot: {label: cut}"),
        moment="step 1 of 2",
        strike=_bound_memory,
        put_right=_remove_cgroup,
        inject=_ALLOCATES,
    ),
]

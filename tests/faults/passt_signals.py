"""A signal ends passt, which forwards the guest's ssh, or stops it."""

from __future__ import annotations

import os
import signal

from campaign.fault import Expected, Fault
from campaign.scene import Scene


def _signal(scene: Scene, number: signal.Signals) -> None:
    os.kill(scene.pid("passt"), number)


FAULTS = [
    Fault(
        "passt-killed",
        "host processes",
        "passt is killed",
        "step",
        Expected(3, "lost", ("passt, which connects the guest to the network, ended",), 60),
        strike=lambda scene: _signal(scene, signal.SIGKILL),
    ),
    Fault(
        "passt-stopped",
        "host processes",
        "passt is stopped (SIGSTOP)",
        "step",
        Expected(3, "lost", ("a signal has stopped passt (SIGSTOP)",), 200),
        strike=lambda scene: _signal(scene, signal.SIGSTOP),
    ),
]

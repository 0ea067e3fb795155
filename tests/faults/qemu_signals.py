"""A signal ends QEMU, or stops it for a while."""

from __future__ import annotations

import os
import signal
import threading

from campaign.fault import Expected, Fault
from campaign.scene import Scene


def kill(scene: Scene) -> None:
    os.kill(scene.pid("qemu-system"), signal.SIGKILL)


def _stop(scene: Scene, seconds: float) -> None:
    pid = scene.pid("qemu-system")
    os.kill(pid, signal.SIGSTOP)

    def resume() -> None:
        if str(pid) in {str(one) for one in scene.orchestrator.processes("qemu-system")}:
            os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(seconds, resume)
    timer.daemon = True
    timer.start()


STOPPED = "a signal has stopped QEMU (SIGSTOP)"

FAULTS = [
    Fault(
        "qemu-killed",
        "host processes",
        "QEMU is killed",
        "step",
        Expected(3, "lost", ("QEMU was killed by SIGKILL",), 30),
        strike=kill,
        short=True,
    ),
    Fault(
        "qemu-killed-in-a-command",
        "host processes",
        "QEMU is killed while a command runs in the guest",
        "step",
        Expected(3, "lost", ("QEMU was killed by SIGKILL",), 30),
        steps=("exec: {argv: [sleep, '170'], timeout: 180s}",),
        strike=kill,
    ),
    Fault(
        "qemu-stopped",
        "host processes",
        "QEMU is stopped (SIGSTOP), to be resumed after a minute",
        "step",
        Expected(3, "lost", (STOPPED,), 60),
        strike=lambda scene: _stop(scene, 60),
    ),
    Fault(
        "qemu-stopped-for-moments",
        "host processes",
        "QEMU is stopped (SIGSTOP), and resumed after three seconds",
        "step",
        Expected(3, "lost", ("a signal ha", "stopped QEMU (SIGSTOP)"), 60),
        strike=lambda scene: _stop(scene, 3),
    ),
    Fault(
        "qemu-stopped-in-a-command",
        "host processes",
        "QEMU is stopped (SIGSTOP) while a command runs in the guest",
        "step",
        Expected(3, "lost", (STOPPED,), 60),
        steps=("exec: {argv: [sleep, '170'], timeout: 180s}",),
        strike=lambda scene: _stop(scene, 170),
    ),
]

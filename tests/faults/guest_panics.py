"""The guest's kernel panics, in each phase of a trial."""

from __future__ import annotations

from campaign.fault import BOOT, SET_UP, STEP, Expected, Fault
from campaign.guest_files import IN_SNAPSHOT, UNTIL_ARMED, own_guest
from campaign.scene import Scene

_PANIC = "(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"


def _panics_in_boot(scene: Scene) -> None:
    own_guest(scene, "quiet", "quiet init=/bin/false")


def _panic_now(scene: Scene) -> None:
    scene.in_guest(_PANIC, check=False)


def _arm(scene: Scene) -> None:
    scene.in_guest(IN_SNAPSHOT % "echo c > /proc/sysrq-trigger")


_EXPECTED = Expected(3, "panic", ("Kernel panic - not syncing", "next:"), 60)

FAULTS = [
    Fault(
        "panic-in-boot",
        "guest",
        "the kernel panics: it has no init",
        "boot",
        Expected(3, "panic", ("Attempted to kill init",), 120, samples=False),
        start="cold",
        moment=BOOT,
        prepare=_panics_in_boot,
    ),
    Fault(
        "panic-in-set-up",
        "guest",
        "the kernel panics",
        "set-up",
        Expected(3, "panic", ("Kernel panic - not syncing",), 60, samples=False),
        start="cold",
        moment=SET_UP,
        strike=_panic_now,
    ),
    Fault(
        "panic-in-step",
        "guest",
        "the kernel panics",
        "step",
        _EXPECTED,
        steps=(
            "wait: {time: 3s}",
            "exec: {argv: [sh, -c, 'sleep 1; echo c > /proc/sysrq-trigger'], timeout: 60s}",
        ),
        moment="step 2 of 2",
    ),
    Fault(
        "panic-in-snapshot",
        "guest",
        "the kernel panics",
        "snapshot",
        _EXPECTED,
        steps=(UNTIL_ARMED, "snapshot: {label: cut}"),
        moment=STEP,
        strike=_arm,
    ),
]

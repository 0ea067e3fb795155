"""A host goes in a trial: one that ssh reaches and that is ours to break, a nested one."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil
from campaign.fault import STEP, Expected, Fault
from campaign.scene import Scene

_BOOT_SECONDS = 900.0  # the first of a cache: a host boots, and a guest in it
_TRIGGER = "(sleep 1; echo {key} > /proc/sysrq-trigger) > /dev/null 2>&1 &"
_FILL = "fallocate -l $(df -B1 --output=avail / | tail -n 1) /var/lib/full; cat /dev/zero > /var/lib/rest"


def _to_host(number: signal.Signals) -> Callable[[Scene], None]:
    def send(scene: Scene) -> None:
        psutil.Process(scene.pid("qemu-system")).send_signal(number)

    return send


def _sysrq(key: str) -> Callable[[Scene], None]:
    def press(scene: Scene) -> None:
        scene.in_guest(_TRIGGER.format(key=key))

    return press


def _kill_ssh(scene: Scene) -> None:
    """All that go to the host: of its reader, of libvirt and of what reaches the guest in it."""
    assert scene.process is not None
    found = [one for one in psutil.Process(scene.process.pid).children(recursive=True) if one.name() == "ssh"]
    assert found, "no ssh goes to the host"
    for one in found:
        one.kill()


def _fill_disk(scene: Scene) -> None:
    scene.in_guest(_FILL, check=False)


def _fault(
    name: str,
    what: str,
    strike: Callable[[Scene], None],
    expected: Expected,
    *steps: str,
    moment: str = STEP,
) -> Fault:
    return Fault(
        f"nested-host-{name}",
        "other hosts",
        what,
        "step",
        expected,
        steps=steps or ("wait: {time: 10min}",),
        scenario="host: nested",
        moment=moment,
        moment_seconds=_BOOT_SECONDS,
        strike=strike,
    )


FAULTS = [
    _fault(
        "killed",
        "the QEMU of a nested host is killed",
        _to_host(signal.SIGKILL),
        Expected(3, "lost", ("host is lost",), 90),
    ),
    _fault(
        "hangs",
        "a nested host stops (SIGSTOP of its QEMU) and does not go on",
        _to_host(signal.SIGSTOP),
        Expected(3, "lost", ("host is lost",), 180),
    ),
    _fault(
        "reboots",
        "the host reboots (sysrq b)",
        _sysrq("b"),
        Expected(3, "lost", ("host is lost",), 180),
    ),
    _fault(
        "ssh-killed",
        "every ssh to the host is killed",
        _kill_ssh,
        Expected(3, "lost", (), 120),
    ),
    _fault(
        "disk-full",
        "the host's disk is full",
        _fill_disk,
        Expected(3, "lost", ("full",), 240),
        "wait: {time: 10s}",
        "exec: {argv: [dd, if=/dev/urandom, of=/root/more, bs=1M, count=256, oflag=direct], timeout: 120s}",
    ),
]

"""A signal asks the orchestrator to end, in each phase, once or more often."""

from __future__ import annotations

import signal
import time
from functools import partial

from campaign.fault import BOOT, REPORT, SET_UP, SNAPSHOT, STEP, Expected, Fault
from campaign.scene import Scene

_PHASES = {
    "boot": (BOOT, "cold", ("wait: {time: 3min}",)),
    "set-up": (SET_UP, "cold", ("wait: {time: 3min}",)),
    "step": (STEP, "warm", ("wait: {time: 3min}",)),
    "snapshot": (SNAPSHOT, "warm", ("wait: {time: 1s}", "snapshot: {label: cut}")),
}
_BETWEEN_SECONDS = 0.3


def _send(scene: Scene, number: signal.Signals, times: int = 1) -> None:
    for _ in range(times):
        scene.signal(number)
        time.sleep(_BETWEEN_SECONDS)


def _one(number: signal.Signals, phase: str, times: int = 1) -> Fault:
    moment, start, steps = _PHASES[phase]
    often = {1: "", 2: ", twice", 3: ", three times"}[times]
    return Fault(
        f"{number.name.lower()}-in-{phase}{f'-{times}-times' if times > 1 else ''}",
        "ourselves",
        f"{number.name}{often}",
        phase,
        Expected(
            130,
            "interrupted",
            ("stopping:", "orchestrator resume"),
            60,
            samples=phase in {"step", "snapshot"},
            status="interrupted",
        ),
        steps=steps,
        start=start,
        moment=moment,
        strike=partial(_send, number=number, times=times),
    )


def _in_report(number: signal.Signals) -> Fault:
    """All trials have ended by then, and stay completed."""
    return Fault(
        f"{number.name.lower()}-in-report",
        "ourselves",
        number.name,
        "report",
        Expected(130, "completed", ("stopping:", "orchestrator report"), 60, status="completed"),
        steps=("wait: {time: 2s}", "snapshot: {label: only}"),
        moment=REPORT,
        strike=lambda scene: scene.signal(number),
    )


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IGNORES = """\
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""


def _interrupt_then_terminate(scene: Scene) -> None:
    """SIGINT changes nothing, as the custom is; SIGTERM ends it."""
    scene.signal(signal.SIGINT)
    time.sleep(3)
    assert scene.process is not None
    assert scene.process.poll() is None, "it did not ignore what it was started to ignore"
    scene.strike_now()
    scene.signal(signal.SIGTERM)


FAULTS = [
    *(_one(number, phase) for number in _SIGNALS for phase in _PHASES),
    *(_in_report(number) for number in _SIGNALS),
    *(_one(number, "step", times) for number in _SIGNALS for times in (2, 3)),
    Fault(
        "sigint-ignored",
        "ourselves",
        "SIGINT, which it was started to ignore (`cmd &`), then SIGTERM",
        "step",
        Expected(130, "interrupted", ("stopping:",), 60, status="interrupted"),
        strike=_interrupt_then_terminate,
        inject=_IGNORES,
    ),
]

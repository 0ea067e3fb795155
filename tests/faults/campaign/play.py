"""Plays one fault, and says what came out beside what must."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from campaign import leftovers
from campaign.fault import Fault, nothing
from campaign.scene import Scene

# What ends by itself may take that long, beyond the end of the process that is waited for.
_SETTLE_SECONDS = 3.0
_MOST_SAID = 300
# `show`, `clean`; each reads or ends a few things.
_VERB_SECONDS = 120.0


@dataclass
class Row:
    """What came of a fault. `seconds`: from it to the end of the command; None where it had to be killed.

    `left`: after the command; `left_by_clean`: after `clean`, which is asked only after what leaves no time
    to clean up. `wrong` says what is not as it must be: a fault without any is survived.
    """

    name: str
    group: str
    fault: str
    when: str
    outcome: str
    code: int | None
    seconds: float | None
    deadline_seconds: float
    said: str
    left: list[str] = field(default_factory=list)
    left_by_clean: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    commit: str = ""
    at: str = ""

    @property
    def survived(self) -> bool:
        """Whether all came out as it must."""
        return not self.wrong

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "survived": self.survived}


def play(fault: Fault, folder: Path, cache: Path) -> Row:
    """Play a fault in a folder of its own, which is made. This process becomes the parent of orphans."""
    folder.mkdir(parents=True)
    scene = Scene(fault, folder, cache)
    leftovers.adopt(scene.spared)
    wrong: list[str] = []
    before, code, seconds = set[leftovers.Trace](), None, None
    try:
        fault.prepare(scene)
        before = leftovers.look(scene.places)
        if fault.play is not None:
            scene.strike_now()
            code, said = fault.play(scene)
            seconds = _since(scene)
            scene.log.write_text(said)
        else:
            code, seconds = _run(fault, scene, wrong)
    except (AssertionError, OSError, subprocess.SubprocessError, psutil.Error) as error:
        wrong.append(f"{type(error).__name__}: {error}"[:_MOST_SAID])
    finally:
        row = _judged(scene, before, code, seconds, wrong)
        with suppress(AssertionError, OSError, subprocess.SubprocessError, psutil.Error):
            fault.put_right(scene)
        _end_all()
        if row.left or code is None:  # the next fault has the same cache
            scene.orchestrator.call("clean", "--results", str(scene.results))
        shutil.rmtree(scene.orchestrator.runtime, ignore_errors=True)
    return row


def _run(fault: Fault, scene: Scene, wrong: list[str]) -> tuple[int | None, float | None]:
    process = scene.begin()
    scene.wait_for(fault.moment, fault.moment_seconds)
    if fault.strike is not nothing and fault.expected.samples:
        scene.wait_for_samples()
    scene.strike_now()
    fault.strike(scene)
    try:
        code: int | None = process.wait(max(1.0, fault.expected.seconds - _since(scene)))
    except subprocess.TimeoutExpired:
        wrong.append(f"control had not come back after {fault.expected.seconds:.0f} s")
        return None, None
    return code, _since(scene)


def _since(scene: Scene) -> float:
    return time.monotonic() - (scene.struck or time.monotonic())


def _judged(
    scene: Scene, before: set[leftovers.Trace], code: int | None, seconds: float | None, wrong: list[str]
) -> Row:
    fault = scene.fault
    expected, said = fault.expected, scene.said
    left, by_clean = list[str](), list[str]()
    goes_on = scene.process is not None and scene.process.poll() is None
    if goes_on:  # what it needs is no leftover
        assert scene.process is not None
        scene.process.kill()
        scene.process.wait()
    else:
        left = _left(scene, before)
    if expected.cleaned or goes_on:
        cleaned = scene.orchestrator.call("clean", "--results", str(scene.results), seconds=_VERB_SECONDS)
        if cleaned.code != 0:
            wrong.append(f"clean ended with code {cleaned.code}: {cleaned.err.strip()[:_MOST_SAID]}")
        by_clean = _left(scene, before)
        wrong += [f"left after clean: {one}" for one in by_clean]
    if not expected.cleaned:
        wrong += [f"left: {one}" for one in left]
    if code is not None and code != expected.code:
        wrong.append(f"exit code {code}, not {expected.code}")
    wrong += [f"it does not say {words!r}" for words in expected.says if words not in said]
    if "Traceback (most recent call last)" in said:
        wrong.append("it prints a traceback")
    if expected.code == 3 and fault.says_what_next and "next:" not in said:
        wrong.append("it does not say what to type next")
    outcome = _outcomes(scene, wrong)
    try:
        fault.check(scene)
    except AssertionError as error:
        wrong.append(str(error)[:_MOST_SAID])
    return Row(
        fault.name,
        fault.group,
        fault.what,
        fault.when,
        outcome,
        code,
        round(seconds, 1) if seconds is not None else None,
        expected.seconds,
        error_line(said.replace(str(scene.folder), "DIR").replace(str(scene.cache), "CACHE")),
        left,
        by_clean,
        wrong,
    )


def _left(scene: Scene, before: set[leftovers.Trace]) -> list[str]:
    """What is left once what ends by itself has ended."""
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = leftovers.left(before, leftovers.look(scene.places))
        if not found or time.monotonic() > end:
            return [str(one) for one in found]
        time.sleep(0.2)


def _outcomes(scene: Scene, wrong: list[str]) -> str:
    """The outcomes of its trials, in words; what is wrong with them is added to `wrong`."""
    expected = scene.fault.expected
    if scene.run is None:
        if expected.outcome is not None:
            wrong.append("there is no run folder")
        return ""
    shown = scene.orchestrator.call(
        "show", scene.run.name, "--results", str(scene.results), "--json", seconds=_VERB_SECONDS
    )
    if shown.code != 0:
        wrong.append(f"show ended with code {shown.code}: {shown.err.strip()[:_MOST_SAID]}")
        return ""
    trials, status = shown.json["trials"], shown.json["status"]
    outcomes = [str(trial["outcome"]) for trial in trials]
    if expected.outcomes is not None and tuple(outcomes) != expected.outcomes:
        wrong.append(f"outcome {', '.join(outcomes) or 'of no trial'}, not {', '.join(expected.outcomes)}")
    if expected.status and status != expected.status:
        wrong.append(f"the run is {status}, not {expected.status}")
    if expected.samples and not any(trial["metrics"].get("guest_page_table_bytes_peak") for trial in trials):
        wrong.append("what was sampled is lost")
    meta = json.loads((scene.run / "meta.json").read_text())
    if expected.code in {0, 1, 3, 130} and meta.get("exit_code") != expected.code:
        wrong.append(f"meta.json says exit code {meta.get('exit_code')}")
    return ", ".join(dict.fromkeys(outcomes)) or str(status)


def error_line(said: str) -> str:
    """The first line of an error in what was printed; without it, what the run says of damage."""
    for pattern in (r"^error: (.*)$", r"^\s*\d+ s (.*(?:damaged|could not be restored).*)$"):
        found = re.search(pattern, said, re.MULTILINE)
        if found is not None:
            return found[1].strip()[:_MOST_SAID]
    return ""


def _end_all() -> None:
    """End what is still there, so that it does not disturb the next fault."""
    for process in leftovers.descendants():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
            process.kill()
    end = time.monotonic() + 10
    while leftovers.descendants() and time.monotonic() < end:
        time.sleep(0.1)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

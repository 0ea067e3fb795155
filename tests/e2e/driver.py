"""Real guests, through the command line only: what a user does and sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 900


@dataclass(frozen=True)
class Finished:
    """How a call of the orchestrator ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # whatever the verb prints
        return json.loads(self.out)


class Orchestrator:
    """The command line, with its results and its runtime folders in folders of the test's own.

    `into` are words before each call, which take it elsewhere, `before` words before a command that is begun;
    `environment` is added to this process's.
    """

    before: tuple[str, ...] = ()

    def __init__(
        self, results: Path, into: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.results = results
        self._into = into
        # A unix socket's path has to fit below it.
        self.runtime = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
        self.runtime.chmod(0o711)  # passt, started as root, passes through as `nobody`
        self._environment = {
            **os.environ,
            **(environment or {}),
            "ORCHESTRATOR_RUNTIME": str(self.runtime),
        }

    def close(self) -> None:
        """Check that nothing to clean, and take away what was."""
        left = self.left_behind()
        self.call("clean")
        shutil.rmtree(self.runtime, ignore_errors=True)
        assert not left, f"left behind: {left}"

    def left_behind(self) -> list[str]:
        """Processes and folders that a run would leave behind."""
        base = self.runtime / f"orchestrator-{os.getuid()}"
        found = [str(folder) for folder in base.iterdir()] if base.is_dir() else []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if f"{self.runtime}/" in words:
                found.append(f"{process.info['pid']} {words[:120]}")
        return found

    def processes(self, name: str) -> list[int]:
        """Ids of programs of a run that is going on."""
        found = []
        for process in psutil.process_iter(["pid", "name", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if (process.info["name"] or "").startswith(name) and f"{self.runtime}/" in words:
                found.append(process.info["pid"])
        return found

    def call(self, *words: str, seconds: float = RUN_SECONDS) -> Finished:
        """Call it and wait for its end."""
        done = subprocess.run(
            self._argv(*words),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=ROOT,
            env=self._environment,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def run(self, scenario: Path, *words: str, seconds: float = RUN_SECONDS) -> Finished:
        """`run` a scenario."""
        return self.call(
            "run",
            str(scenario),
            "--results",
            str(self.results),
            "--guests-dir",
            self._guests(scenario),
            *words,
            seconds=seconds,
        )

    def start(self, scenario: Path, log: Path, *more: str, umask: int = -1) -> subprocess.Popen[bytes]:
        """Begin to `run` a scenario in a process group of its own, with what it says in `log`."""
        words = ("--results", str(self.results), "--guests-dir", self._guests(scenario), *more)
        return self.begin("run", str(scenario), *words, log=log, umask=umask)

    def begin(self, *words: str, log: Path, umask: int = -1) -> subprocess.Popen[bytes]:
        """Begin to call it, in a process group of its own."""
        with log.open("wb") as sink:
            return subprocess.Popen(
                [*self.before, *self._argv(*words)],
                stdout=sink,
                stderr=sink,
                cwd=ROOT,
                env=self._environment,
                start_new_session=True,
                umask=umask,
            )

    def show(self, run: str = "last") -> Any:  # JSON
        """`show RUN --json`."""
        shown = self.call("show", run, "--results", str(self.results), "--json")
        assert shown.code == 0, shown.err
        return shown.json

    def _argv(self, *words: str) -> list[str]:
        return [*self._into, sys.executable, "-m", "orchestrator", *words]

    @staticmethod
    def _guests(scenario: Path) -> str:
        beside = scenario.parent / "guests"
        return str(beside if beside.is_dir() else ROOT / "guests")


def wait_for_line(log: Path, text: str, seconds: float) -> None:
    """Wait until a running orchestrator has said something."""
    end = time.monotonic() + seconds
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < end, f"{text!r} did not come:\n{log.read_text(errors='replace')}"
        time.sleep(0.1)


def wait_for_step(results: Path, arms: Collection[str], seconds: float) -> str:
    """Wait until a trial of one of these arms has begun its first step; the arm."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for arm in arms:
            events = results.glob(f"*/trials/{arm}-*/events.jsonl")
            if any("step.begin" in path.read_text(errors="replace") for path in events):
                return arm
        time.sleep(0.1)
    raise AssertionError(f"no step began in {seconds:.0f} s in: {', '.join(arms)}")


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Send a signal to the orchestrator alone (its guests are sessions of their own) and await its end."""
    process.send_signal(number)
    return process.wait(120)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

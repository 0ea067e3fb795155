"""Where a fault is played: folders of its own, a run that goes on, and the way into its guest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driver import ROOT, Orchestrator, wait_for_line

from campaign.fault import Fault
from campaign.leftovers import Places

_INJECTED = Path(__file__).with_name("injected.py")
_GUEST_SECONDS = 60.0

SCENARIO = """\
version: 1
name: faults
guest: debian-13
start: {start}
machine: {{memory: 512MiB, vcpus: 1}}
{more}
steps:
{steps}
"""
ARMS = 'arms: {only: {kernel: "6.12"}}'


class _Injected(Orchestrator):
    """The command line, of a process that has executed something first."""

    code: Path | None = None

    def _argv(self, *words: str) -> list[str]:
        if self.code is None:
            return super()._argv(*words)
        return [sys.executable, str(_INJECTED), str(self.code), *words]


@dataclass
class Scene:
    """`folder` is the fault's own, `cache` one that no other fault uses meanwhile."""

    fault: Fault
    folder: Path
    cache: Path
    orchestrator: _Injected = field(init=False)
    process: subprocess.Popen[bytes] | None = None
    struck: float | None = None
    spared: set[int] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    """What `prepare` or `strike` keeps for later."""

    def __post_init__(self) -> None:
        for name in ("tmp", "home", "results"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        environment = {
            "ORCHESTRATOR_CACHE": str(self.cache),
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder / "home"),
            "NO_COLOR": "1",
            "COLUMNS": "250",
            **self.fault.environment,
        }
        self.orchestrator = _Injected(self.folder / "results", environment=environment)
        if self.fault.inject:
            self.orchestrator.code = self.folder / "inject.py"
            self.orchestrator.code.write_text(self.fault.inject)

    def put_on_path(self, folder: Path) -> None:
        """Let the run find programs of this folder before those of the machine."""
        environment = self.orchestrator._environment
        environment["PATH"] = f"{folder}:{environment['PATH']}"

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder / "log"

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def results(self) -> Path:
        """Where its run folder is."""
        return self.folder / "results"

    @property
    def run(self) -> Path | None:
        """Its run folder; None as long as there is none."""
        return next((path.parent for path in self.results.glob("*/meta.json")), None)

    @property
    def places(self) -> Places:
        """What to look at."""
        runtime = self.orchestrator.runtime / f"orchestrator-{os.getuid()}"
        return Places((self.folder / "tmp", runtime), self.cache, self.results)

    def write_scenario(self) -> Path:
        """The scenario of the fault."""
        path = self.folder / "faults.yaml"
        steps = "\n".join(f"  - {step}" for step in self.fault.steps)
        more = self.fault.scenario if "arms:" in self.fault.scenario else f"{ARMS}\n{self.fault.scenario}"
        path.write_text(SCENARIO.format(start=self.fault.start, steps=steps, more=more))
        return path

    def begin(self) -> subprocess.Popen[bytes]:
        """Start the run."""
        path = self.write_scenario()
        self.process = self.orchestrator.start(path, self.log, umask=self.fault.umask)
        self.spared.add(self.process.pid)
        return self.process

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until it prints something. Raises AssertionError where it does not, or ends before."""
        end = time.monotonic() + seconds
        while text not in self.said:
            assert self.process is None or self.process.poll() is None, f"it ended before {text!r}"
            assert time.monotonic() < end, f"{text!r} did not come within {seconds:.0f} s"
            time.sleep(0.05)

    def wait_for_samples(self) -> None:
        """Wait until samples of the guest are on disk. Where a trial has ended, they are."""
        end = time.monotonic() + _GUEST_SECONDS
        while not any(
            path.suffix == ".parquet" or b"guest_meminfo" in path.read_bytes()
            for path in self.results.glob("*/trials/*/observations.*")
        ):
            assert time.monotonic() < end, "no sample came"
            time.sleep(0.1)

    def strike_now(self) -> None:
        """The fault is there from now on."""
        self.struck = time.monotonic()

    def pid(self, name: str) -> int:
        """Of the program of the run that is called so."""
        end = time.monotonic() + 10
        while not (found := self.orchestrator.processes(name)):
            assert time.monotonic() < end, f"no {name} runs"
            time.sleep(0.1)
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Send it to the orchestrator alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def in_guest(self, script: str, *, check: bool = True) -> str:
        """Run a shell script in the guest, by a connection of our own that the orchestrator does not know."""
        passt = Path(f"/proc/{self.pid('passt')}/cmdline").read_text()
        found = re.search(r"127\.0\.0\.1/(\d+):22", passt)
        assert found is not None
        argv = ["ssh", "-i", str(self.cache / "ssh" / "client"), "-p", found[1], "-F", "none"]
        # Whose key it has matters to the orchestrator, and not here.
        argv += [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]
        done = subprocess.run(
            [*argv, "root@127.0.0.1", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GUEST_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr[-300:]
        return done.stdout


__all__ = ["ROOT", "Scene", "wait_for_line"]

"""Trials and boots side by side, each in a process of its own: boots, and trials whose times do not matter.

A worker has a libvirt, a runtime folder and a clean-up of its own. It is sent SIGTERM when the run is
interrupted, and by the kernel when the process of the run is killed.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from orchestrator.errors import InfrastructureError, OrchestratorError
from orchestrator.host.runtime import remove_of
from orchestrator.interrupts import deferred
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import TrialSpec
from orchestrator.records.events import TrialEnd, of_kind
from orchestrator.run.budget import Budget
from orchestrator.store import layout, read_events

# What it starts gets SIGTERM when the process that started it is gone, however that came (prctl(2)).
TOGETHER = ("setpriv", "--pdeathsig", "TERM")

END_SECONDS = 60.0
_MOST_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Ended:
    """A trial or a boot that ended: what went wrong, or None, and how long it took."""

    name: str
    outcome: str
    error: OrchestratorError | None
    seconds: float


@dataclass(frozen=True)
class TrialTask:
    """A trial, or the boot that it starts from: that is saved as `boot`, and the trial does not run."""

    plan: TrialSpec
    boot: str = ""

    @property
    def name(self) -> str:
        """What people call it, and its folder."""
        return self.boot or self.plan.id

    @property
    def folder(self) -> str:
        """Where in the run's folder it writes."""
        return f"{layout.BOOTS if self.boot else layout.TRIALS}/{self.name}"

    @property
    def cores(self) -> int | None:
        """What it keeps busy: the kernel and systemd boot mostly on one core, and is not timed."""
        return 1 if self.boot else None


@dataclass
class _Worker:
    task: TrialTask
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float = field(default_factory=time.monotonic)
    have: bytes = b""


class ParallelRunner:
    """Runs trials in workers, as many at once as the budget has room for."""

    def __init__(
        self,
        run_dir: Path,
        places: ProjectPaths,
        progress: Progress,
        connect: str | None,
        budget: Budget,
        *,
        learn: Callable[[Mapping[str, object]], None] = lambda _: None,
    ) -> None:
        """`learn` is given what a trial finds out of a host of its own."""
        self._learn = learn
        self._run_dir = run_dir
        self._places = places
        self._progress = progress
        self._connect = connect
        self._budget = budget
        self._selector = selectors.DefaultSelector()
        self.most_at_once = 0

    def run(self, tasks: Sequence[TrialTask]) -> Iterator[Ended]:
        """Run them all; gives each as it ends. Ends what runs when the caller is interrupted."""
        waiting = list(tasks)
        workers: list[_Worker] = []
        try:
            while waiting or workers:
                while waiting and self._budget.take(waiting[0].plan, waiting[0].cores):
                    task = waiting.pop(0)
                    if not task.boot:
                        self._progress.trial(task.name, len(tasks) - len(waiting), len(tasks))
                    with deferred():  # none is started and not known
                        workers.append(self._start(task))
                    self.most_at_once = max(self.most_at_once, len(workers))
                for worker in self._relay(workers):
                    workers.remove(worker)
                    yield self._ended(worker)
        finally:
            with deferred():
                self._end(workers)
            self._selector.close()

    def argv(self, task: TrialTask) -> list[str]:
        """The command that is a worker."""
        words = (
            str(self._run_dir),
            task.plan.id,
            str(self._places.guests),
            task.plan.accel,
            self._connect or "",
            str(os.getpid()),
            task.boot,
        )
        return [*TOGETHER, sys.executable, "-m", "orchestrator.run.worker", *words]

    def _start(self, task: TrialTask) -> _Worker:
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the worker has ended
        process = subprocess.Popen(
            self.argv(task),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        worker = _Worker(task, process, log)
        assert process.stdout is not None  # noqa: S101  # a pipe
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _relay(self, workers: Sequence[_Worker]) -> list[_Worker]:
        """Pass on what workers say; those of them that have ended."""
        for key, _ in self._selector.select(timeout=1.0):
            worker: _Worker = key.data
            part = os.read(key.fd, 1 << 16)
            worker.have += part
            *lines, worker.have = worker.have.split(b"\n")
            worker.have = worker.have[-_MOST_LINE_BYTES:]
            for line in lines:
                self._say(worker, line)
            if not part:
                self._selector.unregister(key.fileobj)
                worker.process.wait()
        return [worker for worker in workers if worker.process.poll() is not None]

    def _close(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None  # noqa: S101  # a pipe
        # It may have ended before the end of what it said was read: the next worker gets its descriptor.
        with suppress(KeyError):
            self._selector.unregister(worker.process.stdout)
        worker.process.stdout.close()

    def _say(self, worker: _Worker, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        match said:
            case {"text": text}:
                self._progress.note(f"{worker.task.name}: {text}")
            case {"learned": dict(facts)}:
                self._learn(facts)

    def _ended(self, worker: _Worker) -> Ended:
        task = worker.task
        self._budget.give_back(task.plan, task.cores)
        seconds = time.monotonic() - worker.began
        self._close(worker)
        worker.log.seek(0)
        said = worker.log.read()[-4000:].decode(errors="replace").strip()
        worker.log.close()
        folder = self._run_dir / task.folder
        ends = of_kind(read_events(folder), TrialEnd)
        if not ends:
            error = InfrastructureError(
                f"the process of {task.name} ended with code {worker.process.returncode}",
                details=said,
                hint="" if remove_of(worker.process.pid) else "orchestrator clean",
            )
            return Ended(task.name, "failed", error, seconds)
        end = ends[-1]
        outcome = end.outcome
        if outcome == "completed":
            return Ended(task.name, outcome, None, seconds)
        failure = InfrastructureError(
            end.error or outcome,
            details=end.details or said,
            hint=end.hint,
            console_tail=end.console_tail,
        )
        return Ended(task.name, outcome, failure, seconds)

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            try:
                worker.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._close(worker)
            worker.log.close()

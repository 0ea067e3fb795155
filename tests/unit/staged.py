"""A trial from end to end whose guest is played."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Answer, FakeChannel, FakeDomain, FakeShell, Ticking, trial_plan

from orchestrator.errors import OrchestratorError
from orchestrator.guest import boot
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import Console
from orchestrator.guest.setup import SETTINGS
from orchestrator.host.shell import HostShell
from orchestrator.launch.environment import SharedHost, TrialEnvironment
from orchestrator.launch.guests import Guests
from orchestrator.launch.paths import ProjectPaths
from orchestrator.observation import Reading
from orchestrator.plan import TrialSpec
from orchestrator.probes import HostView, Probe
from orchestrator.records.events import Event
from orchestrator.run import sampling
from orchestrator.run.trial import run_trial
from orchestrator.series import Series
from orchestrator.store import TrialWriter, read_events

ROOT = Path(__file__).parents[2]
UNAME = "7.3.0-rc1+ #12 SMP PREEMPT_DYNAMIC Sun Nov 29 10:00:00 UTC 2026\n"
WAIT = {"action": "wait", "params": {"time": 0.05}}
EXEC = {"action": "exec", "params": {"argv": ["true"]}}
DMESG = "[    0.000000] Linux version 6.12\n[   12.3] BUG: Bad page map in process sh  pte:1 pmd:2\n"


class One(Probe):
    """Reads 1 on the host."""

    series = (Series("one", "count", "always 1"),)

    def from_host(self, host: HostView) -> Iterator[Reading]:
        yield Reading("one", 1)


class Watching:
    """A Progress that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, ...]] = []

    def note(self, text: str) -> None:
        self.messages.append(("note", text))

    def trial(self, trial_id: str, number: int, total: int) -> None: ...
    def step(self, text: str, number: int, total: int) -> None:
        self.messages.append(("step", f"{number}/{total} {text}"))

    def step_done(self, text: str, outcome: str, seconds: float) -> None:
        self.messages.append(("done", text, outcome))

    def trial_done(self, trial_id: str, outcome: str, seconds: float) -> None: ...


class Stage(Guests):
    """One trial whose guest is played; `console` is what the guest prints when it is booted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.watching = Watching()
        self.console = ""
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.domain = FakeDomain()
        self.ended = False
        self.kernel_args = ""
        self.kernel = folder / "bzImage"
        self.kernel.write_bytes(b"a kernel of mine")
        self.installed: set[str] = set()
        self.boot_error: OrchestratorError | None = None
        self.shell = FakeShell()
        self.channel: Callable[[], FakeChannel] = Ticking
        self.make_shell: type[FakeShell] = FakeShell
        self.host_shell = HostShell()
        self.calls: list[str] = []
        monkeypatch.setattr(sampling, "PROBES", [("one", One)])
        monkeypatch.setattr(boot, "LATE_SECONDS", 0.1)

    @contextmanager
    def booted(
        self, *_: object, scratch: Path, console_log: Path | None = None, kernel_args: str = "", **__: object
    ) -> Iterator[Guest]:
        assert console_log
        scratch.mkdir(parents=True)
        self.kernel_args = kernel_args
        if self.boot_error:
            raise self.boot_error
        console_log.write_text(self.console)
        answers = {SETTINGS: "", "uname -rv": UNAME, "dmesg": DMESG, **self.answers}
        self.shell = self.make_shell(answers, self.channel())
        try:
            guest: Any = (self.domain, self.shell, Console(console_log), None)
            yield Guest(*guest)
        finally:
            self.ended = True

    def restored(self, *_: object, **__: object) -> AbstractContextManager[Guest]:
        raise AssertionError("nothing was saved")

    def adopted(self, *_: object, **__: object) -> AbstractContextManager[Guest]:
        raise AssertionError("its host is no guest")

    def apply_playbook(
        self, playbook: Path, variables: dict[str, Any], *_: object, check: Callable[[], None]
    ) -> None:
        check()
        assert playbook.is_file()
        with tarfile.open(variables["programs"]) as tar:
            assert all(member.mode == 0o755 for member in tar)
            self.installed = set(tar.getnames())

    def plan(self, *steps: object, **changes: object) -> TrialSpec:
        return trial_plan("arm-01", steps=steps, sample_every_seconds=0.01, **changes)

    def run(self, *steps: object, accel: str = "tcg", **changes: object) -> OrchestratorError | None:
        places = ProjectPaths(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", self.folder / "cache")
        image: Any = SimpleNamespace(boot_files=lambda kernel: SimpleNamespace(kernel=self.kernel))
        host: Any = SimpleNamespace(
            embedded=True, shell=self.host_shell, wait_for_ends=lambda: self.calls.append("wait")
        )
        programs = {source.stem: source for source in (ROOT / "guests" / "programs").iterdir()}
        unused: Any = None  # keys and the definition: the stand-in for guests needs neither
        runtime = self.folder / "runtime"
        environment = TrialEnvironment(
            host,
            image,
            unused,
            places,
            accel,
            unused,
            runtime,
            self.watching,
            programs,
            SharedHost(),
            guests=self,
        )
        writer = TrialWriter(self.folder / "arm-01", "arm-01")
        return run_trial(self.plan(*steps, **changes), environment, writer)

    @property
    def events(self) -> tuple[Event, ...]:
        return read_events(self.folder / "arm-01")

    def event(self, name: str) -> dict[str, Any]:
        (event,) = (event for event in self.events if event.name == name)
        return said(event)


def said(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.fields().items() if key not in {"t_ns", "event"}}

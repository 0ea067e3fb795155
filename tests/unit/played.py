"""Runs whose trials are played: all is there of a run but guests and the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import OrchestratorError
from orchestrator.host.accel import Acceleration, Kernel
from orchestrator.plan import TrialPlan
from orchestrator.records.events import TrialBegin, TrialEnd
from orchestrator.run import execute
from orchestrator.run.places import Places
from orchestrator.store import TrialWriter

ROOT = Path(__file__).parents[2]
FACTS = {"accel": "tcg", "hypervisor": {"qemu": "10.0.2"}, "image": {"key": "k"}}


class Trials:
    """Plays trials: each ends as `ends` says, else completed."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.ends: dict[str, OrchestratorError | BaseException] = {}

    def run(self, planned: TrialPlan, lab: object, writer: TrialWriter) -> OrchestratorError | None:
        self.ran.append(planned.id)
        error = self.ends.get(planned.id)
        writer.record(TrialBegin(t_ns=0))
        if error is not None and not isinstance(error, OrchestratorError):
            raise error
        outcome = getattr(error, "outcome", "failed") if error else "completed"
        writer.record(TrialEnd(t_ns=1, outcome=outcome))
        writer.close()
        return error


def play(monkeypatch: pytest.MonkeyPatch) -> Trials:
    """Let runs of this test be played."""
    played = Trials()

    @contextmanager
    def anything(*_: object, **__: object) -> Iterator[object]:
        yield SimpleNamespace(shell=SimpleNamespace(is_here=True), embedded=False)

    monkeypatch.setattr(execute, "run_trial", played.run)
    monkeypatch.setattr(execute, "guest_programs", lambda *_: {})
    monkeypatch.setattr(execute, "runtime_folder", lambda _: nullcontext(Path("/nowhere")))
    monkeypatch.setattr(execute, "ensure_keys", lambda _: None)
    image = SimpleNamespace(kernel_to_try=lambda name: Kernel(Path(name), name))
    monkeypatch.setattr(execute, "ensure_image", lambda *_, **__: image)
    emulated = Acceleration("tcg", "played", "none")
    monkeypatch.setattr(execute, "choose", lambda *_: emulated)
    monkeypatch.setattr(execute, "chosen_meanwhile", lambda *_: nullcontext(lambda: emulated))
    monkeypatch.setattr(execute, "open_host", anything)
    monkeypatch.setattr(execute, "guest_facts", lambda *_: FACTS)
    monkeypatch.setattr(execute, "host_facts", lambda *_: {})
    return played


PROGRESS: Any = SimpleNamespace(note=lambda *_: None, trial=lambda *_: None, trial_done=lambda *_: None)


def places(folder: Path) -> Places:
    return Places(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", folder / "cache")

"""What threads start has the capabilities that it needs; calls that hang in C have an end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import interrupts
from orchestrator.errors import InfrastructureError
from orchestrator.host import bounded, libvirt_host
from orchestrator.host.bounded import call_within
from orchestrator.host.confined import DAC_OVERRIDE, confine_children
from orchestrator.interrupts import deferred, stopped_by_signals


def status(text: str) -> dict[str, str]:
    """/proc/PID/status."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def of_a_child(*keep: int, no_new_privileges: bool = False) -> dict[str, str]:
    def start() -> str:
        confine_children(keep, no_new_privileges=no_new_privileges)
        argv = ["cat", "/proc/self/status"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    return status(call_within(30.0, start))


def test_a_child_has_no_capability_but_those_to_keep() -> None:
    before = status(Path("/proc/self/status").read_text())
    child = of_a_child(DAC_OVERRIDE)
    kept = f"{1 << DAC_OVERRIDE:016x}" if os.geteuid() == 0 else before["CapEff"]
    assert (child["CapEff"], child["CapPrm"]) == (kept, kept)
    assert int(of_a_child()["CapEff"], 16) == 0
    after = status(Path("/proc/self/status").read_text())
    assert [after[name] for name in ("CapEff", "CapBnd", "NoNewPrivs")] == [
        before[name] for name in ("CapEff", "CapBnd", "NoNewPrivs")
    ], "this thread keeps its own"


def test_a_child_can_gain_none() -> None:
    assert of_a_child()["NoNewPrivs"] == "0"
    assert of_a_child(no_new_privileges=True)["NoNewPrivs"] == "1"


def test_a_call_that_hangs_is_ended_once_a_signal_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(bounded, "_LOOK_SECONDS", 0.05)
    hangs, told = threading.Event(), []
    with (  # noqa: PT012  # the signal is raised where `deferred` ends
        pytest.raises(KeyboardInterrupt),
        stopped_by_signals(lambda: told.append("stopping"), lambda: None),
        deferred(),
    ):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert call_within(30.0, hangs.wait, unstick=hangs.set)
    assert told == ["stopping"]
    assert not interrupts.stopping()


def test_libvirt_that_does_not_answer_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    hung: Any = SimpleNamespace(open=lambda _uri: never.wait())
    monkeypatch.setattr(libvirt_host, "_OPEN_THERE_SECONDS", 0.2)
    with pytest.raises(InfrastructureError) as caught:
        libvirt_host._opened(hung, "qemu+ssh://root@there/system?command=x", here=False)
    never.set()
    assert caught.value.brief == "libvirt at qemu+ssh://root@there/system did not answer in 0 s"
    assert "virsh -c" in caught.value.hint

"""A nested host for a trial: what is kept of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import GuestPanicError
from orchestrator.run import nested


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_the_console_of_a_host_that_does_not_come_up_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    def booted(*_: object, console_log: Path | None = None, **__: object) -> object:
        if console_log:
            console_log.write_text("Kernel panic")
        raise GuestPanicError("the guest's kernel panicked")

    monkeypatch.setattr(nested, "booted", booted)
    monkeypatch.setattr(nested, "nested_spec", lambda *_: None)
    state: Any = SimpleNamespace(disk=tmp_path / "disk")
    hosts = SimpleNamespace(image=SimpleNamespace(boot_files=str), accel="tcg", definition=None)
    progress = SimpleNamespace(step=lambda *_: None)
    lab = SimpleNamespace(nested=hosts, host=None, keys=None, runtime=tmp_path, progress=progress)
    with ExitStack() as stack:
        begin: Any = SimpleNamespace(
            plan=SimpleNamespace(start=start, steps=(), host_kernel="7.3", host_machine=None),
            lab=lab,
            writer=SimpleNamespace(host_console_log=tmp_path / "host-console.log"),
            scratch=tmp_path / "scratch",
            stack=stack,
            from_state=lambda _, make, **__: make(state),
        )
        with pytest.raises(GuestPanicError):
            nested.nested_guest(begin)
    assert (tmp_path / "host-console.log").read_text() == "Kernel panic"

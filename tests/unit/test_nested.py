"""A nested host for a trial: what is kept of it."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import GuestPanicError
from orchestrator.guest import boot
from orchestrator.launch.guests import Guests
from orchestrator.launch.nested import NestedHosts


class Panics(Guests):
    """Guests that print that they panicked, and do not come up."""

    def booted(self, *_: object, console_log: Path | None = None, **__: object) -> Any:
        if console_log:
            console_log.write_text("Kernel panic")
        raise GuestPanicError("the guest's kernel panicked")

    def restored(self, *_: object, **__: object) -> Any:
        raise AssertionError("nothing was saved")

    def adopted(self, *_: object, **__: object) -> Any:
        raise AssertionError("its host is not there")

    def apply_playbook(self, *_: object, **__: object) -> None:
        raise AssertionError("it is not there")


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_the_console_of_a_host_that_does_not_come_up_is_kept(tmp_path: Path, start: str) -> None:
    state: Any = SimpleNamespace(disk=tmp_path / "disk")
    parts: Any = {"image": SimpleNamespace(boot_files=str), "accel": "tcg", "definition": None}

    @dataclass(frozen=True)
    class WithoutSpec(NestedHosts):
        def spec(self, *_: object) -> Any:
            return None

    hosts = WithoutSpec(**parts)
    progress = SimpleNamespace(step=lambda *_: None)
    environment = SimpleNamespace(
        starts=hosts, host=None, keys=None, runtime=tmp_path, progress=progress, guests=Panics()
    )
    with ExitStack() as stack:
        begin: Any = SimpleNamespace(
            plan=SimpleNamespace(start=start, steps=(), host_kernel="7.3", host_machine=None),
            environment=environment,
            writer=SimpleNamespace(host_console_log=tmp_path / "host-console.log"),
            scratch=tmp_path / "scratch",
            stack=stack,
            from_state=lambda _, make, **__: make(state),
        )
        with pytest.raises(GuestPanicError):
            hosts.guest(begin)
    assert (tmp_path / "host-console.log").read_text() == "Kernel panic"


@pytest.mark.parametrize(("target", "seconds"), [(None, 10), (True, 40), (False, 10)])
def test_a_guest_in_a_host_of_ours_may_take_its_time_to_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: bool | None, seconds: float
) -> None:
    waited: list[float] = []

    def answering(guest: object, seconds: float) -> object:
        waited.append(seconds)
        return guest

    monkeypatch.setattr(boot, "answering", answering)
    monkeypatch.setattr(boot, "domain_xml", lambda *_, **__: "")
    monkeypatch.setattr(boot, "noted", lambda *_: nullcontext())
    monkeypatch.setattr(boot, "guest_shell", lambda *_: None)
    shell = SimpleNamespace(
        folder=lambda *_, **__: nullcontext(tmp_path),
        place=lambda path, _: path,
        run=lambda *_, **__: "",
        free_port=lambda: 1,
        tail=lambda *_: b"",
        is_here=target is None,
        target=None if target is None else SimpleNamespace(ours=target),
    )
    host: Any = SimpleNamespace(shell=shell, domain=lambda *_, **__: nullcontext(), runtime=tmp_path)
    image: Any = SimpleNamespace(folder=tmp_path, disk=tmp_path / "disk")
    files: Any = SimpleNamespace(kernel=tmp_path / "vmlinuz", initrd=None, release="6.12")
    definition: Any = SimpleNamespace(command_line="quiet", boot_timeout=10)
    words: Any = (host, image, files, None, None)
    with boot.booted(
        *words, name="x", accel="tcg", definition=definition, scratch=tmp_path, progress=lambda _: None
    ):
        assert waited == [seconds]

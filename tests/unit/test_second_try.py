"""A saved state that cannot be restored is made again, and the second try finds nothing of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_states import SPEC

from orchestrator.errors import InfrastructureError
from orchestrator.guest import boot
from orchestrator.guest.states import SavedState
from orchestrator.host.shell import HostShell
from orchestrator.launch.environment import GuestLaunch


def make(state: SavedState) -> None:
    for path in (state.memory, state.disk, state.console_log):
        path.write_text("saved")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[Path], GuestLaunch]]:
    """A trial that begins, with a cache; what it has started ends with the test."""
    with ExitStack() as stack:

        def begin(scratch: Path) -> GuestLaunch:
            progress = SimpleNamespace(step=lambda *_: None, note=lambda _: None)
            environment = SimpleNamespace(progress=progress, places=SimpleNamespace(cache=tmp_path / "cache"))
            parts: Any = {
                "plan": SimpleNamespace(steps=()),
                "environment": environment,
                "writer": SimpleNamespace(record=lambda _: None),
            }
            return GuestLaunch(**parts, scratch=scratch, now_ns=lambda: 0, stack=stack)

        yield begin


def test_what_the_first_try_started_has_ended(launch: Callable[[Path], GuestLaunch], tmp_path: Path) -> None:
    """Else a host that was restored, but not the guest in it, would hold the name that comes next."""
    running: list[int] = []
    tries = iter(range(1, 9))

    @contextmanager
    def started() -> Iterator[int]:
        number = next(tries)
        assert running == [], "two have one name"
        running.append(number)
        try:
            yield number
        finally:
            running.remove(number)

    def restore(_state: SavedState, stack: ExitStack) -> int:
        number = stack.enter_context(started())
        if number in (2, 3):
            raise InfrastructureError("the guest in it does not answer")
        return number

    begin = launch(tmp_path / "scratch")
    assert begin.from_state(SPEC, make=make, restore=restore) == 1
    assert running == [1], "it goes on until the trial ends"
    begin.stack.close()
    assert running == []
    with pytest.raises(InfrastructureError, match="does not answer"):
        begin.from_state(SPEC, make=make, restore=restore)
    assert running == []
    assert begin.from_state(SPEC, make=make, restore=restore) == 4


def test_the_second_try_has_the_folder_of_the_first(
    launch: Callable[[Path], GuestLaunch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([False, True, False])

    @contextmanager
    def restored_domain(*_: object) -> Iterator[str]:
        if next(refusals):
            raise InfrastructureError("libvirt could not start the guest")
        yield "domain"

    monkeypatch.setattr(
        boot, "_overlay", lambda _shell, _base, path, **_: path.write_text("overlay") and path
    )
    monkeypatch.setattr(boot, "guest_shell", lambda *_: None)
    monkeypatch.setattr(boot, "answering", lambda guest, _: guest)
    host: Any = SimpleNamespace(shell=HostShell(), restored_domain=restored_domain)
    keys: Any = None
    scratch = tmp_path / "runtime" / "scratch"

    def restore(state: SavedState, stack: ExitStack) -> boot.Guest:
        return stack.enter_context(
            boot.restored(host, state, keys, scratch=scratch, console_log=tmp_path / "console.log")
        )

    begin = launch(scratch)
    begin.from_state(SPEC, make=make, restore=restore)
    begin.stack.close()
    guest = begin.from_state(SPEC, make=make, restore=restore)
    assert str(guest.domain) == "domain"
    assert [path.name for path in scratch.iterdir()] == ["disk.qcow2"]
    begin.stack.close()
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("said", "brief"),
    [
        ("libvirt_iohelper: Unable to write memory.sav: No space left on device", "No space left on device"),
        ("the monitor has gone", "libvirt refused"),
    ],
)
def test_a_full_cache_is_named(
    launch: Callable[[Path], GuestLaunch], tmp_path: Path, said: str, brief: str
) -> None:
    def save(_memory: Path) -> None:
        raise InfrastructureError("libvirt refused or lost the guest", details=said)

    guest: Any = SimpleNamespace(
        shell=SimpleNamespace(run=lambda *_, **__: None, close=lambda: None),
        domain=SimpleNamespace(save=save),
        telling=nullcontext,
    )
    begin = launch(tmp_path)
    with pytest.raises(InfrastructureError, match=brief) as caught:
        begin.save(guest, SavedState(tmp_path / "states" / ".saving-x"))
    assert (caught.value.hint == f"free some space: df -h {tmp_path / 'states'}") == ("space" in brief)
    assert caught.value.details == said

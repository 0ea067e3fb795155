"""Consoles: printable whatever the guest printed, bounded whatever it went on to, and a panic is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import Clock, FakeDomain
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import BootTimeoutError, GuestError, GuestLostError, GuestPanicError
from orchestrator.guest import boot
from orchestrator.guest.boot import Guest
from orchestrator.guest.console import MAX_CONSOLE_BYTES, Console
from orchestrator.host.remote import HostLostError
from orchestrator.printable import printable

PANIC = "[    1.5] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    1.6] CPU: 0\r\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\ttext\r\nnext\n", "plain\ttext\nnext\n"),
        ("\x1b[2J\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[?25l\x1b[!pok\x1bc", "okc"),
        ("bell\x07 back\x08space \x9b31mC1", "bell backspace 31mC1"),
        ("\x1b]0;title\x07", "0;title"),
        ("\x1b\x00[2J", "[2J"),
    ],
)
def test_what_a_terminal_would_act_on_is_gone(said: str, shown: str) -> None:
    assert printable(said) == shown


@given(st.text(alphabet=st.sampled_from("\x1b\x9b[]0;mJ?\x00\x07\r\n a~")) | st.text())
def test_nothing_is_left_to_act_on(said: str) -> None:
    left = set(printable(said))
    assert not {char for char in left if ord(char) < 32 or 127 <= ord(char) < 160} - {"\n", "\t"}


def test_a_console_that_nothing_was_printed_on(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    assert (console.text(), console.tail(), console.panic()) == ("", "", "")


def test_an_endless_console_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    console.path.write_bytes(b"the beginning\n" + b"x" * (2 * MAX_CONSOLE_BYTES) + b"\nthe end\n")
    text = console.text()
    assert text.startswith("the beginning\n")
    assert text.endswith("\nthe end\n")
    assert len(text) == MAX_CONSOLE_BYTES


def test_the_tail_of_a_panic_begins_with_its_cause(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    trace = "".join(f"[    1.7]  frame_{index}+0x1/0x2\n" for index in range(60))
    console.path.write_text(f"booting\n[    1.4] BUG: unable to handle page fault\n{trace}{PANIC}")
    shown = console.tail(5).splitlines()
    assert len(shown) == 5
    assert "unable to handle" in shown[0]
    console.path.write_text(trace)
    assert console.tail(1) == "[    1.7]  frame_59+0x1/0x2", "no panic, the last line"


@pytest.mark.parametrize("size", [MAX_CONSOLE_BYTES // 2 - 1, MAX_CONSOLE_BYTES // 2 + 1, MAX_CONSOLE_BYTES])
def test_a_console_within_bounds_is_whole(tmp_path: Path, size: int) -> None:
    console = Console(tmp_path / "console.log")
    text = "".join(chr(ord("a") + number % 26) for number in range(1000)) * (size // 1000 + 1)
    console.path.write_text(text[:size])
    assert console.text() == text[:size]


def test_the_tail_is_the_last_lines_and_no_line_is_endless(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    console.path.write_text("".join(f"line {number}\n" for number in range(100)) + "y" * 5000)
    lines = console.tail(3).split("\n")
    assert lines[:2] == ["line 98", "line 99"]
    assert len(lines[2]) == 300


def test_a_panic_is_seen_and_told_in_one_line(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    console.path.write_text("Kernel command line: panic=-1\n")
    assert console.panic() == ""
    console.path.write_bytes(b"\xff\xfe" + PANIC.encode())
    assert console.panic() == "Kernel panic - not syncing: VFS: Unable to mount root fs"


class Refusing:
    """A shell that does not answer."""

    connected = False
    why_closed = ""

    def connect(self) -> None:
        raise EOFError

    def run(self, *_: object, **__: object) -> None:
        raise GuestLostError("the guest does not answer on ssh")


def guest(tmp_path: Path, console: str = "", *, running: bool = True) -> Guest:
    made = Console(tmp_path / "console.log")
    made.path.write_text(console)
    return Guest(FakeDomain(running=running), Refusing(), made, None)  # type: ignore[arg-type]  # fakes


def test_why_a_guest_is_dead(tmp_path: Path) -> None:
    assert guest(tmp_path).why_dead() is None
    panic = guest(tmp_path, PANIC, running=False).why_dead()
    assert isinstance(panic, GuestPanicError), "that it stopped is only what came of it"
    assert "CPU: 0" in panic.console_tail
    assert isinstance(guest(tmp_path, running=False).why_dead(), GuestLostError)
    met = GuestError("x")
    assert guest(tmp_path, "last words\n").why_dead(met) is met
    assert met.console_tail == "last words"
    assert isinstance(guest(tmp_path, PANIC).why_dead(met), GuestPanicError)


def test_time_without_a_cpu_is_none_that_a_guest_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for the busiest of its threads, up to a bound."""
    clock = Clock()
    clock.install(monkeypatch, boot)

    def spent(waits: Callable[[float], float]) -> float:
        began = clock.seconds

        def texts(*_: object) -> dict[str, str]:
            nanoseconds = round(1e9 * (1000 + waits(clock.seconds - began)))
            return {"1": "5 12 3\n", "2": f"5 {nanoseconds} 3\n", "3": "damaged"}

        made = guest(tmp_path)
        assert isinstance(made.domain, FakeDomain)
        monkeypatch.setattr(made.domain.shell, "texts", texts, raising=False)
        with pytest.raises(BootTimeoutError) as late:
            boot.answering(made, 100)
        assert f"within {clock.seconds - began:.0f} s" in late.value.brief
        assert ("kept waiting" in late.value.brief) == (waits(100) > 0)
        return clock.seconds - began

    assert spent(lambda _: 0) == pytest.approx(100, abs=1), "it had waited before it was begun to wait for it"
    assert spent(lambda seconds: min(seconds, 30)) == pytest.approx(130, abs=1)
    assert spent(lambda seconds: seconds / 2) == pytest.approx(200, abs=1)
    assert spent(lambda seconds: seconds) == pytest.approx(300, abs=1), "there is an end"


def test_waiting_for_a_shell_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(GuestPanicError):
        boot.answering(guest(tmp_path, PANIC), 60)
    with pytest.raises(GuestLostError):
        boot.answering(guest(tmp_path, running=False), 60)
    with pytest.raises(BootTimeoutError, match="within 0 s") as late:
        boot.answering(guest(tmp_path, "still booting\n"), 0.01)
    assert late.value.details == "last try: EOFError"
    assert late.value.console_tail == "still booting"


def test_a_host_that_ended_is_named_although_it_is_told_late(tmp_path: Path) -> None:
    """The connection to a host breaks before libvirt hears that the host, a guest itself, has gone."""
    host = guest(tmp_path, running=False)
    answers = iter([None, None, host.why_dead()])
    told_late = SimpleNamespace(why_dead=lambda: next(answers))
    lost = replace(guest(tmp_path, running=False), host=told_late).why_dead()  # type: ignore[arg-type]  # a fake
    assert isinstance(lost, HostLostError)
    assert lost.details == "on the host: the guest stopped running"

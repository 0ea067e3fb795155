"""Commands over ssh, with a channel that a script plays: what came is kept, and what broke is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, CommandTimeoutError, GuestError, GuestLostError
from orchestrator.guest import shell as module
from orchestrator.guest.shell import CommandResult, GuestShell, _Conversation


class Channel:
    """As much of paramiko.Channel as is used. `steps` happen one at each look at `eof_received`."""

    def __init__(self, *steps: Callable[[Channel], None]) -> None:
        self.steps = list(steps)
        self.out, self.err = bytearray(), bytearray()
        self.code: int | None = None
        self.eof = False
        self.closed = False
        self.sent = b""
        self.input_ended = False

    @property
    def eof_received(self) -> bool:
        eof = self.eof
        if self.steps:
            self.steps.pop(0)(self)
        return eof

    reads = True

    def settimeout(self, seconds: float) -> None: ...
    def send(self, data: bytes) -> int:
        if not self.reads:
            raise TimeoutError
        self.sent += data[:1000]
        return len(data[:1000])

    def shutdown_write(self) -> None:
        self.input_ended = True

    def recv_ready(self) -> bool:
        return bool(self.out)

    def recv_stderr_ready(self) -> bool:
        return bool(self.err)

    def recv(self, size: int) -> bytes:
        part, self.out = bytes(self.out[:size]), self.out[size:]
        return part

    def recv_stderr(self, size: int) -> bytes:
        part, self.err = bytes(self.err[:size]), self.err[size:]
        return part

    def exit_status_ready(self) -> bool:
        # Always, so that every turn looks at eof_received; paramiko says so of a closed channel, too.
        return True

    def recv_exit_status(self) -> int:
        return -1 if self.code is None else self.code

    def close(self) -> None:
        self.closed = True


def prints(out: bytes = b"", err: bytes = b"") -> Callable[[Channel], None]:
    def step(channel: Channel) -> None:
        channel.out += out
        channel.err += err

    return step


def ends(code: int) -> Callable[[Channel], None]:
    def step(channel: Channel) -> None:
        channel.code, channel.eof, channel.closed = code, True, True

    return step


def breaks(channel: Channel) -> None:
    channel.closed = True


def drain(
    channel: Channel, stdin: bytes = b"", seconds: float = 5, look: Callable[[], None] = lambda: None
) -> CommandResult:
    return _Conversation(channel, ["cmd"], Deadline(seconds), look).held(stdin)


def test_both_outputs_are_read_to_the_end() -> None:
    big = bytes(range(256)) * 1000
    channel = Channel(prints(big, b"warning\n"), prints(b"tail"), ends(3))
    result = drain(channel, b"input" * 1000)
    assert result == CommandResult(3, big + b"tail", b"warning\n")
    assert (channel.sent, channel.input_ended) == (b"input" * 1000, True)


def test_a_command_that_reads_nothing_has_an_end() -> None:
    channel = Channel()
    channel.reads = False
    with pytest.raises(CommandTimeoutError, match="did not finish 'cmd'"):
        drain(channel, b"input", seconds=0.05)


def test_a_guest_that_is_lost_ends_a_command_before_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is given something, or waited for; and what looks may run a command of its own."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(GuestShell, "__init__", lambda _self: None)
    deaf = Channel()
    deaf.reads = False
    channels = iter([Channel(), Channel(ends(0)), deaf, Channel(ends(0))])
    monkeypatch.setattr(GuestShell, "stream", lambda *_: next(channels))
    shell: Any = GuestShell.__new__(GuestShell)

    def look() -> None:
        assert shell.run(["true"], seconds=5).code == 0
        raise GuestLostError("QEMU was killed by SIGKILL")

    for stdin in (b"", b"input"):
        with pytest.raises(GuestLostError, match="SIGKILL"), shell.watched(look):
            shell.run(["sleep", "60"], seconds=60, stdin=stdin)
    assert shell._look is None


def test_an_end_that_comes_between_two_looks_is_an_end() -> None:
    """Exit status, end of file and close may all arrive after we saw that there was no end yet."""
    assert drain(Channel(ends(0))) == CommandResult(0, b"", b"")


def test_output_that_comes_with_the_end_is_kept() -> None:
    def last_words(channel: Channel) -> None:
        channel.out += b"last"
        ends(0)(channel)

    assert drain(Channel(last_words)).stdout == b"last"


def test_a_connection_that_breaks_is_a_lost_guest() -> None:
    with pytest.raises(GuestLostError, match="closed the ssh connection"):
        drain(Channel(prints(b"half"), breaks))


def test_a_command_that_does_not_end_is_a_lost_guest() -> None:
    with pytest.raises(CommandTimeoutError, match="did not finish 'cmd'"):
        drain(Channel(), seconds=0.05)


def test_endless_output_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 1000)
    with pytest.raises(CommandError, match="more than 1000 bytes"):
        drain(Channel(prints(b"x" * 600, b"y" * 600)))


class Transport:
    """As much of paramiko.Transport as is used."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.active = not errors

    def is_active(self) -> bool:
        return self.active

    def get_exception(self) -> Exception | None:
        return self.errors.pop(0) if self.errors else None


def connected(transport: Transport) -> GuestShell:
    shell = GuestShell.__new__(GuestShell)
    connection: Any = SimpleNamespace(open=lambda: None, transport=transport)
    shell._connection = connection
    shell._why_closed = ""
    shell.connect()
    return shell


def test_nothing_is_sent_that_the_guest_would_have_to_acknowledge() -> None:
    """passt resets a connection whose guest does not, after seconds: the stand-in has no set_keepalive."""
    shell = connected(Transport())
    assert shell.connected
    assert shell.why_closed == ""


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "[Errno 104] Connection reset by peer"),
        (EOFError(), "the other side closed it"),
        (None, "it was closed"),
    ],
)
def test_how_a_connection_ended_is_kept(error: Exception | None, why: str) -> None:
    shell = connected(Transport(error))
    assert not shell.connected
    assert [shell.why_closed, shell.why_closed] == [why, why], "paramiko tells it once"


def test_a_command_that_does_not_begin_is_a_lost_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd has taken the session and says no more: paramiko waits until the channel is closed."""
    monkeypatch.setattr(module, "START_SECONDS", 0.01)
    closed = threading.Event()

    def exec_command(_: str) -> None:
        assert closed.wait(5), "it waited for ever"
        raise paramiko.SSHException("Channel closed.")

    channel = SimpleNamespace(exec_command=exec_command, close=closed.set)
    transport: Any = Transport()
    transport.open_session = lambda timeout: channel
    with pytest.raises(GuestLostError, match="does not answer on ssh"):
        connected(transport).stream(["true"])


@pytest.mark.parametrize("error", [TimeoutError(), OSError("Socket is closed"), EOFError()])
def test_what_paramiko_raises_is_a_lost_guest(error: Exception) -> None:
    def fail(channel: Channel) -> None:
        raise error

    with pytest.raises(GuestLostError, match="broke"):
        drain(Channel(fail))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[[Channel], GuestShell]:
    def make(channel: Channel) -> GuestShell:
        made = GuestShell.__new__(GuestShell)
        monkeypatch.setattr(made, "stream", lambda argv: channel, raising=False)
        return made

    return make


def test_a_code_is_an_error_unless_it_was_expected(shell: Any) -> None:
    channel = Channel(prints(b"", b"no such file\n"), ends(2))
    with pytest.raises(CommandError, match="'cat /x' ended with code 2") as failed:
        shell(channel).run(["cat", "/x"], seconds=5)
    assert failed.value.details == "no such file\n"
    assert channel.closed
    assert isinstance(failed.value, GuestError)
    assert not isinstance(failed.value, GuestLostError), "the guest answered"
    assert shell(Channel(ends(2))).run(["cat", "/x"], seconds=5, check=False).code == 2

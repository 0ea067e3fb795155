"""Commands in a guest, through fabric. Nothing else in the project imports it.

fabric's defaults are not ours: it would accept any host key, ask an agent and read the user's
~/.ssh/config. Here only the key that was baked into the image is believed.
"""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.deadline import Deadline
from orchestrator.errors import CommandError, CommandTimeoutError, GuestLostError, InfrastructureError
from orchestrator.guest.keys import SshKeys
from orchestrator.host.ssh import SshTarget

MAX_OUTPUT_BYTES = 64 << 20
CONNECT_SECONDS = 20.0
# From a command to sshd's word that it has begun: a guest that has run out of memory takes its time to fork.
START_SECONDS = 90.0
_CHUNK = 1 << 16
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left: its exit code and bounded output."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are none are replaced."""
        return self.stdout.decode(errors="replace")


class GuestShell:
    """A shell in one guest. Close it when done; a lost connection is a GuestLostError.

    `port` is one of 127.0.0.1: of the host `target`, or of this machine.
    """

    _transport: Any = None  # paramiko.Transport
    _look: Callable[[], None] | None = None

    def __init__(self, port: int, keys: SshKeys, known_hosts: Path, target: SshTarget | None = None) -> None:
        import fabric
        import paramiko

        # It logs every refused connection with a traceback, and while a guest boots all are refused.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
        self.port = port
        self.proxy = shlex.join(target.argv(forward=f"127.0.0.1:{port}")) if target else None
        """A command whose standard input and output are a connection to the guest, where one is needed."""
        self.known_hosts = known_hosts
        known_hosts.write_text(keys.known_hosts_line(port))
        known_hosts.chmod(0o600)
        self._keys, self._target = keys, target
        self._why_closed = ""
        config = fabric.Config(overrides={"load_ssh_configs": False}, lazy=True)
        self._connection = fabric.Connection(
            "127.0.0.1",
            user="root",
            port=port,
            config=config,
            gateway=self.proxy,
            connect_timeout=CONNECT_SECONDS,
            connect_kwargs={
                "key_filename": str(keys.client),
                "allow_agent": False,
                "look_for_keys": False,
                "banner_timeout": CONNECT_SECONDS,
                "auth_timeout": CONNECT_SECONDS,
            },
        )
        self._connection.client.load_host_keys(str(known_hosts))
        self._connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())

    def connect(self) -> None:
        """Open the connection. Raises OSError or paramiko's SSHException when the guest is not ready.

        Nothing is sent to keep it alive: passt resets a connection when the guest has not acknowledged what
        was sent for 8 s (tcp_timer_handler(), tcp.c), which a guest of a busy host may well take. Deadlines
        end what is silent for too long: each command has one, and so has the sampler (`run.sampling`).
        """
        self._connection.open()
        self._transport = self._connection.transport

    def close(self) -> None:
        """Close the connection; a running stream ends."""
        close(self._connection)

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as this side knows."""
        return self._transport is not None and bool(self._transport.is_active())

    @property
    def why_closed(self) -> str:
        """How the connection ended: by the other side, or as the kernel has it; empty while it stands."""
        if self.connected or self._transport is None:
            return ""
        error = self._transport.get_exception()  # paramiko gives it once
        if error is not None:
            self._why_closed = "the other side closed it" if isinstance(error, EOFError) else str(error)
        return self._why_closed or "it was closed"

    @contextmanager
    def watched(self, look: Callable[[], None]) -> Iterator[None]:
        """Have `look` called once a second while a command runs in the block: it raises what ended the guest,
        which may be long before the command's deadline."""
        before, self._look = self._look, look
        try:
            yield
        finally:
            self._look = before

    def _look_once(self) -> None:
        """What is looked for may want a command of its own."""
        look, self._look = self._look, None
        try:
            if look is not None:
                look()
        finally:
            self._look = look

    def once_more(self, argv: list[str], *, seconds: float) -> tuple[str, str]:
        """Run a command on a new connection: what it printed, or why it could not be run."""
        import paramiko

        another = GuestShell(self.port, self._keys, self.known_hosts, self._target)
        try:
            another.connect()
            return another.run(argv, seconds=seconds).text, ""
        except (OSError, EOFError, paramiko.SSHException, InfrastructureError) as error:
            return "", str(error) or type(error).__name__
        finally:
            another.close()

    def stream(self, argv: list[str]) -> Any:  # paramiko.Channel, which callers read and close
        """Start a command and hand over its channel."""
        import paramiko

        try:
            channel = self._connection.transport.open_session(timeout=CONNECT_SECONDS)
            # paramiko waits for the answer without a bound, and a closed channel ends that.
            late = threading.Timer(START_SECONDS, close, [channel])
            late.daemon = True
            late.start()
            try:
                channel.exec_command(shlex.join(argv))
            finally:
                late.cancel()
        except (paramiko.SSHException, OSError, EOFError, AttributeError) as error:
            # paramiko drops the transport of a dead connection, hence the AttributeError.
            raise GuestLostError("the guest does not answer on ssh", details=str(error)) from error
        return channel

    def run(
        self,
        argv: list[str],
        *,
        seconds: float,
        stdin: bytes = b"",
        check: bool = True,
        oom_score_adj: int | None = None,
    ) -> CommandResult:
        """Run a command to its end; with `oom_score_adj`, under that in place of the connection's own.

        Raises GuestLostError when the connection fails or `seconds` are over, CommandError when
        `check` and the command's exit code is not 0.
        """
        choose = [] if oom_score_adj is None else ["choom", "-n", str(oom_score_adj), "--"]
        channel = self.stream([*choose, *argv])
        try:
            result = _Conversation(channel, argv, Deadline(seconds), self._look_once).held(stdin)
        finally:
            close(channel)
        if check and result.code != 0:
            said = result.stderr.decode(errors="replace")[-2000:]
            raise CommandError(
                f"in the guest, {shlex.join(argv)[:200]!r} ended with code {result.code}", details=said
            )
        return result


def close(what: Any) -> None:  # paramiko.Channel, fabric.Connection
    """Close it, also where the way to the guest is broken: paramiko says good-bye on it first."""
    import paramiko

    with suppress(OSError, EOFError, paramiko.SSHException):
        what.close()


@dataclass
class _Conversation:
    """With a command that runs: what it is given, and what it says."""

    channel: Any  # paramiko.Channel
    argv: list[str]
    deadline: Deadline
    look: Callable[[], None]

    def __post_init__(self) -> None:
        self._next_look = Deadline(_LOOK_SECONDS)

    def held(self, stdin: bytes) -> CommandResult:
        """The whole of it."""
        import paramiko

        try:
            self._give(stdin)
            return self._take()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestLostError("the ssh connection to the guest broke", details=str(error)) from error

    def _give(self, stdin: bytes) -> None:
        rest = memoryview(stdin)
        self.channel.settimeout(_LOOK_SECONDS)
        while rest:
            with suppress(TimeoutError):  # it does not read
                rest = rest[self.channel.send(rest[:_CHUNK]) :]
            self._go_on()
        self.channel.settimeout(self.deadline.remaining)
        self.channel.shutdown_write()

    def _take(self) -> CommandResult:
        channel, stdout, stderr = self.channel, bytearray(), bytearray()
        # Read both, else a command that fills the one that is not read would wait for ever.
        while True:
            closed = channel.closed  # before the rest: once it is closed, all else has come
            busy = _take_what_came(channel, stdout, stderr)
            if len(stdout) + len(stderr) > MAX_OUTPUT_BYTES:
                raise CommandError(
                    f"in the guest, {self.argv[0]!r} printed more than {MAX_OUTPUT_BYTES} bytes"
                )
            # exit_status arrives after the last byte of output; eof after both.
            if channel.exit_status_ready() and channel.eof_received and not _has_more(channel):
                return CommandResult(channel.recv_exit_status(), bytes(stdout), bytes(stderr))
            if closed and not busy:
                said = shlex.join(self.argv)[:200]
                raise GuestLostError("the guest closed the ssh connection", details=said)
            self._go_on()
            if not busy:
                time.sleep(0.01)

    def _go_on(self) -> None:
        """Raise what ended it, or the guest."""
        if self.deadline.expired:
            said, seconds = shlex.join(self.argv)[:200], self.deadline.seconds
            raise CommandTimeoutError(f"the guest did not finish {said!r} in {seconds:.0f} s")
        if self._next_look.expired:
            self._next_look = Deadline(_LOOK_SECONDS)
            self.look()


def _take_what_came(channel: Any, stdout: bytearray, stderr: bytearray) -> bool:  # paramiko.Channel
    before = len(stdout) + len(stderr)
    while channel.recv_ready():
        stdout += channel.recv(_CHUNK)
    while channel.recv_stderr_ready():
        stderr += channel.recv_stderr(_CHUNK)
    return len(stdout) + len(stderr) > before


def _has_more(channel: Any) -> bool:  # paramiko.Channel
    return bool(channel.recv_ready() or channel.recv_stderr_ready())

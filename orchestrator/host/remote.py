"""The reader on another machine: sent there over ssh, and asked through the pipe."""

from __future__ import annotations

import base64
import inspect
import json
import os
import select
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from orchestrator.deadline import Deadline
from orchestrator.errors import GuestLostError, InfrastructureError
from orchestrator.host import collapse as collapsing
from orchestrator.host import mappings, page_tables, pagemap, perf_counters, reader, vm_processes
from orchestrator.host.ssh import SshTarget
from orchestrator.interrupts import deferred, stopping

CALL_SECONDS = 60.0
_LAST_SECONDS = 10.0  # that an answer may still take once a signal wants an end
_LOOK_SECONDS = 1.0
_MOST_HEAD_BYTES = 1 << 16
_MOST_BODY_BYTES = 1 << 30
_NOT_OURS = "what it answers is not what the reader says"

# What is sent: the reader last, behind what it imports.
_SENT = (pagemap, collapsing, mappings, page_tables, perf_counters, vm_processes, reader)
# Takes their names and texts from the first line, and then serves what follows it.
_LOADER = """
import base64, json, sys, types
for name, text in json.loads(base64.b64decode(sys.stdin.buffer.readline())):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.serve(sys.stdin.buffer, sys.stdout.buffer)
"""


class HostLostError(GuestLostError):
    """The host vanished, and its guests with it."""


class RemoteReader:
    """The reader on another machine, at the other end of a pipe. Threads take turns."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._broken = ""
        self._have = bytearray()

    def __enter__(self) -> RemoteReader:
        argv = self._target.argv("python3", "-u", "-c", _LOADER)
        self._ssh = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        try:
            texts = [(one.__name__, inspect.getsource(one)) for one in _SENT]
            self._send(base64.b64encode(json.dumps(texts).encode()) + b"\n")
            self.call("free_port")  # it answers
        except BaseException as error:
            self.__exit__()
            if not isinstance(error, HostLostError):
                raise
            raise InfrastructureError(
                f"cannot reach {self._target.name} by ssh, or it has no python3",
                details=error.details,
                hint=f"see what it says: {self._target.by_hand}",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._ssh.stdin and self._ssh.stdout and self._ssh.stderr  # noqa: S101, PT018  # pipes
        answers = not self._broken
        self._broken = self._broken or "it was closed"
        with suppress(OSError):
            self._ssh.stdin.close()
        try:
            self._ssh.wait(2 if answers else 0)  # what is lost would not end by itself
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._ssh.stdout.close()
        self._ssh.stderr.close()

    def call(self, name: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        """Ask, and wait for the answer.

        A signal is raised behind it: with half an answer in the pipe nothing could be cleaned up there.
        """
        with self._lock, deferred():
            if self._broken:
                raise HostLostError(f"{self._target.name} is lost", details=self._broken)
            try:
                return self._ask(name, arguments, Deadline(seconds))
            except HostLostError as error:
                self._broken = error.details
                raise

    def _ask(self, name: str, arguments: Sequence[Any], deadline: Deadline) -> Any:
        self._send(json.dumps([name, *arguments]).encode() + b"\n")
        line = self._line(deadline)
        strange = self._lost(f"{_NOT_OURS}: {line[:200].decode(errors='replace')}")
        # A login that greets (an `echo` in .bashrc) is no answer, either.
        try:
            head = json.loads(line)
            failed = (int(head["errno"]), str(head["error"])[:500]) if "error" in head else None
            size = 0 if failed else int(head["bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise strange from error
        if failed:
            raise OSError(*failed, self._target.name)
        if not 0 <= size <= _MOST_BODY_BYTES:
            raise strange
        body = self._exactly(size, deadline)
        try:
            return body if name in reader.RAW else json.loads(body)
        except ValueError as error:
            raise strange from error

    def _send(self, data: bytes) -> None:
        assert self._ssh.stdin is not None  # noqa: S101  # a pipe
        try:
            view = memoryview(data)
            while view:
                view = view[self._ssh.stdin.write(view) :]
        except OSError as error:
            # EPIPE says no more than that ssh has ended, and by chance: it may as well end behind a write.
            raise self._lost(self._last_words()) from error

    def _line(self, deadline: Deadline) -> bytes:
        while (end := self._have.find(b"\n")) < 0:
            if len(self._have) > _MOST_HEAD_BYTES:
                raise self._lost(_NOT_OURS)
            self._more(deadline)
        line = bytes(self._have[:end])
        del self._have[: end + 1]
        return line

    def _exactly(self, size: int, deadline: Deadline) -> bytes:
        while len(self._have) < size:
            self._more(deadline)
        body = bytes(self._have[:size])
        del self._have[:size]
        return body

    def _more(self, deadline: Deadline) -> None:
        assert self._ssh.stdout is not None  # noqa: S101  # a pipe
        number = self._ssh.stdout.fileno()
        last: Deadline | None = None
        while not select.select([number], [], [], min(_LOOK_SECONDS, deadline.remaining))[0]:
            if last is None and stopping():
                last = Deadline(_LAST_SECONDS)
            if deadline.expired or (last and last.expired):
                raise self._lost(f"it did not answer in {(last or deadline).seconds:.0f} s")
        part = os.read(number, 1 << 20)
        if not part:
            raise self._lost(self._last_words())
        self._have += part

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._ssh.wait(2)
        assert self._ssh.stderr is not None  # noqa: S101  # a pipe
        # With ControlPersist another ssh may hold the other end of it for long.
        if self._ssh.poll() is None or not select.select([self._ssh.stderr], [], [], 0)[0]:
            return "the connection ended"
        said: bytes = self._ssh.stderr.read(4096) or b""
        return said.decode(errors="replace").strip() or "the connection ended"

    def _lost(self, why: str) -> HostLostError:
        return HostLostError(f"{self._target.name} does not answer", details=why)

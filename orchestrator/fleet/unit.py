"""The unit on a host of a fleet: a process for each trial, which ends with its worker, and its folder back.

    CACHE/fleet/
        .lock           held by the worker: one for each cache
        plans/          plans by their SHA-256, which heads have sent
        units/NAME/     of one trial: process.json, log, and into/, where `orchestrator trial` puts its folder

`run_unit` and `keep_plan` are all that a task of Dask names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.deadline import Deadline, wait_for
from orchestrator.errors import BadInputError, ExitCode, InfrastructureError, OrchestratorError, host_failure
from orchestrator.fleet.archive import pack
from orchestrator.fleet.card import Program
from orchestrator.processes import boot_id, is_alive, send_signal, started_ticks
from orchestrator.records.base import Record
from orchestrator.run.parallel import END_SECONDS, TOGETHER
from orchestrator.store.atomic import replace_text
from orchestrator.store.layout import checked_id

Answer = dict[str, Any]
"""What comes back of a trial: text, numbers and bytes only."""

_MOST_PLAN_BYTES: Final = 256 << 20
_MOST_SAID_BYTES: Final = 4000
_ELAPSED: Final = re.compile(r"^ *[0-9]+ s ")  # of that process: people see one clock
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PLANS, _UNITS, _PROCESS = "plans", "units", "process.json"
_LOOK_SECONDS: Final = 0.2  # beside a trial that is measured

UNIT_COMMAND: Final = (sys.executable, "-m", "orchestrator", "trial")


class Order(Record):
    """What a host is asked for. `key` names it among those of all runs; `token` is the host's."""

    key: str
    token: str
    trial: str
    plan_sha256: str
    program: Program
    largest_bytes: int

    def to_json(self) -> str:
        """As `run_unit` takes it."""
        return self.model_dump_json()


@dataclass
class UnitHost:
    """This host, as its worker has it. `command` is `orchestrator trial`; `tell` takes lines of a trial."""

    name: str
    token: str
    program: Program
    spool: Path
    guests: Path
    tell: Callable[[str, str], None] = lambda _key, _line: None
    command: Sequence[str] = field(default_factory=lambda: UNIT_COMMAND)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep_plan(self, sha256: str, compressed: bytes) -> None:
        """Keep a plan for orders to come. Raises BadInputError where it is not what its hash says."""
        inflate = zlib.decompressobj()
        try:
            text = inflate.decompress(compressed, _MOST_PLAN_BYTES)
        except zlib.error:
            text = b""
        if not inflate.eof or hashlib.sha256(text).hexdigest() != sha256:
            raise BadInputError("a plan came that is not what its SHA-256 says")
        folder = self.spool / _PLANS
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / f"{sha256}.json", text.decode())

    def run(self, order: Order) -> Answer:
        """Have a process do the trial; its folder, or why there is none."""
        if order.token != self.token:
            return _none("this worker is another than the one that was asked", refused=False)
        if differences := self.program.differences(order.program):
            what = "; ".join(differences)
            return _none(f"{self.name} has another program: {what}", refused=True)
        try:
            checked_id("trial", order.trial)
            return self._made(order)
        except BadInputError as error:
            return _none(error.brief, error, refused=True)
        except OrchestratorError as error:
            return _none(error.brief, error)
        except OSError as error:
            return _none(host_failure(error).brief, host_failure(error))

    def end(self, key: str) -> None:
        """End what runs of an order, without waiting."""
        with self._lock:
            self._ended.add(key)
            process = self._running.get(key)
        if process is not None:
            _terminate(process)

    def end_all(self) -> None:
        """End everything that runs."""
        with self._lock:
            keys = list(self._running)
        for key in keys:
            self.end(key)

    def _made(self, order: Order) -> Answer:
        plan = self._plan(order.plan_sha256)
        folder = self.spool / _UNITS / secrets.token_hex(4)
        into = folder / "into"
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(parents=True)
            code, said = self._run(order, plan, folder, into)
            made = into / order.trial
            if not made.is_dir():
                return self._without_folder(order, code, said)
            packed = pack(made, order.largest_bytes)
        return {"made": True, "sha256": packed.sha256, "data": packed.data, "token": self.token}

    def _without_folder(self, order: Order, code: int, said: str) -> Answer:
        with self._lock:
            ended = order.key in self._ended
            self._ended.discard(order.key)
        if ended:
            return _none("it was ended, as it was asked for")
        brief = next(
            (line.partition("error: ")[2] for line in said.splitlines() if "error: " in line),
            f"its process ended with code {code}",
        )
        refused = code == ExitCode.BAD_INPUT
        return _none(brief, InfrastructureError(brief, details=said), refused=refused)

    def _plan(self, sha256: str) -> Path:
        path = self.spool / _PLANS / f"{sha256}.json"
        if not _SHA256.fullmatch(sha256) or not path.is_file():
            raise InfrastructureError("the plan of the trial is not there")
        return path

    def _run(self, order: Order, plan: Path, folder: Path, into: Path) -> tuple[int, str]:
        """The exit code, and the end of what it said."""
        words = [str(plan), order.trial, "--into", str(into), "--guests-dir", str(self.guests)]
        words += ["--host-name", self.name]
        log = folder / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*TOGETHER, *self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,
            )
        try:
            ticks = started_ticks(process.pid) or 0
            replace_text(folder / _PROCESS, json.dumps(asdict(_UnitProcess(process.pid, ticks, boot_id()))))
            with self._lock:
                self._running[order.key] = process
                ended = order.key in self._ended
            if ended:  # before it had begun
                _terminate(process)
            self._relay(order.key, process, log)
        finally:
            with self._lock:
                self._running.pop(order.key, None)
            if process.poll() is None:
                _terminate(process)
                process.wait()
        said = log.read_bytes()[-_MOST_SAID_BYTES:].decode(errors="replace")
        return process.returncode, said

    def _relay(self, key: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Tell what it says until it has ended."""
        with log.open("rb") as lines:
            have = b""
            while True:
                over = process.poll() is not None  # before reading: what it said last is read
                *whole, have = (have + lines.read(1 << 16)).split(b"\n")
                for line in whole:
                    self.tell(key, _ELAPSED.sub("", line[:1000].decode(errors="replace")))
                if over:
                    return
                time.sleep(_LOOK_SECONDS)


@dataclass(frozen=True)
class _UnitProcess:
    """As in `orchestrator.processes`."""

    pid: int
    started_ticks: int
    boot_id: str


def _none(brief: str, error: OrchestratorError | None = None, *, refused: bool = False) -> Answer:
    error = error or InfrastructureError(brief)
    return {
        "made": False,
        "refused": refused,
        "error": error.brief,
        "details": error.details[-_MOST_SAID_BYTES:],
        "hint": error.hint,
    }


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM now, SIGKILL where that has not ended it in time."""

    def kill_later() -> None:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    threading.Thread(target=kill_later, name="end of a unit", daemon=True).start()


@contextmanager
def spool_of(cache: Path) -> Iterator[Path]:
    """The folder of a worker, without what the one before left. Raises BadInputError if there is another."""
    spool = cache / "fleet"
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (spool / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(
                f"a worker runs with this cache already: {cache}", hint="ORCHESTRATOR_CACHE names another"
            ) from None
        clear(spool)
        yield spool
        shutil.rmtree(spool / _UNITS, ignore_errors=True)


def clear(spool: Path) -> None:
    """End the units that a worker that is no more has left running, and remove what they left."""
    found = []
    for path in (spool / _UNITS).glob(f"*/{_PROCESS}"):
        with suppress(OSError, ValueError, TypeError):
            found.append(_UnitProcess(**json.loads(path.read_bytes())))

    def alive() -> list[_UnitProcess]:
        return [one for one in found if is_alive(one.pid, one.started_ticks, one.boot_id)]

    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in alive():
            send_signal(one.pid, one.started_ticks, number)
        if wait_for(lambda: None if alive() else True, Deadline(END_SECONDS), every=0.05):
            break
    for name in (_UNITS, "traces"):
        shutil.rmtree(spool / name, ignore_errors=True)


_host: UnitHost | None = None
"""That of this process, for what Dask calls by name."""


def serve_here(host: UnitHost) -> None:
    """Have `run_unit` and `keep_plan` of this process mean this host."""
    global _host  # noqa: PLW0603  # Dask calls functions by name; a process is one host
    _host = host


def run_unit(order_json: str) -> Answer:
    """Do what an order says, here: a task of Dask."""
    if _host is None:
        return _none("no worker of a fleet runs here", refused=True)
    try:
        order = Order.model_validate_json(order_json)
    except ValidationError:
        return _none("an order came that cannot be read", refused=True)
    return _host.run(order)


def keep_plan(sha256: str, compressed: bytes) -> str:
    """Keep a plan for orders to come; empty, or why it was not kept."""
    if _host is None:
        return "no worker of a fleet runs here"
    try:
        _host.keep_plan(sha256, compressed)
    except OrchestratorError as error:
        return error.brief
    except OSError as error:
        return host_failure(error).brief
    return ""

"""Points of a sweep on a host of a fleet: its worker has processes for them, which end with it.

    CACHE/fleet/
        traces/         of `compare`, by their SHA-256, which heads have sent

`run_point` and `keep_trace` are all that a task of Dask names.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import BadInputError, InfrastructureError, OrchestratorError, host_failure
from orchestrator.fleet.card import Program
from orchestrator.records.base import Record
from orchestrator.store.atomic import replace_file
from orchestrator.sweep import Row, SweepTask
from orchestrator.sweep.engine import end_pool, pool_of
from orchestrator.sweep.tasks import CompareTask, task_from_json

Answer = dict[str, Any]
"""What comes back of a point: text and booleans only."""

MOST_TRACE_BYTES: Final = 1 << 30
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ROWS: Final = TypeAdapter(list[Row])


class PointOrder(Record):
    """What a host is asked for. `task` is as `task_to_json` has it, with a trace by its SHA-256."""

    program: Program
    task: str

    def to_json(self) -> str:
        """As `run_point` takes it."""
        return self.model_dump_json()


def with_trace_by_hash(task: SweepTask) -> tuple[SweepTask, Path | None]:
    """A task as it travels, and the trace that has to be there first. Raises BadInputError."""
    if not isinstance(task, CompareTask):
        return task, None
    return replace(task, trace=Path(trace_sha256(task.trace))), task.trace


def trace_bytes(path: Path) -> bytes:
    """Of a trace, as it is sent. Raises BadInputError where it is not there, or too large for that."""
    try:
        if path.stat().st_size > MOST_TRACE_BYTES:
            raise BadInputError(
                f"{path} is larger than 1 GiB, which is the most that is sent to hosts",
                hint="leave out --fleet",
            )
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None


@lru_cache(maxsize=256)
def trace_sha256(path: Path) -> str:
    """By which hosts know a trace. Raises BadInputError."""
    return hashlib.sha256(trace_bytes(path)).hexdigest()


def rows_of(answer: object) -> list[Row]:
    """What a host said, which may be anything: the rows. Raises InfrastructureError."""
    said = answer if isinstance(answer, dict) else {}
    if said.get("made") is not True:
        raise InfrastructureError(str(said.get("error") or "the host gave no rows")[:1000])
    try:
        return _ROWS.validate_python(json.loads(said["rows"]), strict=True)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        raise InfrastructureError("what the host gave is no table of a sweep") from None


@dataclass
class SweepHost:
    """This host, as its worker has it for sweeps. `compiled`: the folder of compiled code."""

    name: str
    program: Program
    traces: Path
    compiled: Path
    processes: int
    _pool: ProcessPoolExecutor | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Processes end with the thread that began them (PR_SET_PDEATHSIG, prctl(2)); Dask's come and go.
    _starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "points of a sweep"))

    def keep_trace(self, sha256: str, data: bytes) -> None:
        """Keep a trace for orders to come. Raises BadInputError where it is not what its hash says."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadInputError("a trace came that is not what its SHA-256 says")
        self.traces.mkdir(parents=True, exist_ok=True)
        replace_file(self.traces / sha256, partial(_write, data))

    def run(self, order: PointOrder) -> Answer:
        """The rows of a point, or why there are none."""
        if differences := self.program.differences(order.program):
            return _none(f"{self.name} has another program: {'; '.join(differences)}")
        try:
            task = self._task(order.task)
            rows = self._starter.submit(self._begin, task).result().result()
        except BrokenProcessPool:
            with self._lock:
                self._pool = None
            return _none(f"a process of {self.name} was killed: was it out of memory?")
        except OrchestratorError as error:
            return _none(error.brief)
        except OSError as error:
            return _none(host_failure(error).brief)
        return {"made": True, "rows": json.dumps(rows)}

    def close(self) -> None:
        """End what is computed."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            end_pool(pool)
            pool.shutdown(cancel_futures=True)
        self._starter.shutdown()

    def _begin(self, task: SweepTask) -> Future[list[Row]]:
        with self._lock:
            if self._pool is None:
                self._pool = pool_of(self.compiled, self.processes)
            return self._pool.submit(task.rows)

    def _task(self, text: str) -> SweepTask:
        task = task_from_json(text)
        if not isinstance(task, CompareTask):
            return task
        name = str(task.trace)
        if not _SHA256.fullmatch(name) or not (self.traces / name).is_file():
            raise InfrastructureError("the trace of the point is not there")
        return replace(task, trace=self.traces / name)


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _none(error: str) -> Answer:
    return {"made": False, "error": error}


_host: SweepHost | None = None
"""That of this process, for what Dask calls by name."""


def serve_sweeps_here(host: SweepHost) -> None:
    """Have `run_point` and `keep_trace` of this process mean this host."""
    global _host  # noqa: PLW0603  # Dask calls functions by name; a process is one host
    _host = host


def run_point(order_json: str) -> Answer:
    """Compute what an order says, here: a task of Dask."""
    if _host is None:
        return _none("no worker of a fleet runs here")
    try:
        return _host.run(PointOrder.model_validate_json(order_json))
    except ValidationError:
        return _none("an order came that cannot be read")


def keep_trace(sha256: str, data: bytes) -> str:
    """Keep a trace for orders to come; empty, or why it was not kept."""
    if _host is None:
        return "no worker of a fleet runs here"
    try:
        _host.keep_trace(sha256, data)
    except OrchestratorError as error:
        return error.brief
    except OSError as error:
        return host_failure(error).brief
    return ""

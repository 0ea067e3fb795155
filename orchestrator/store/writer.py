"""Writes a run folder as the run goes, so that a kill at any moment leaves a readable one."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.observation import Observation
from orchestrator.printable import clean
from orchestrator.records.events import Event, TrialEnd
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import PlanRecord
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.store import layout
from orchestrator.store.atomic import keep_room, replace_file, replace_text, sync_directory
from orchestrator.store.layout import Status, checked_id
from orchestrator.store.liveness import this_process
from orchestrator.store.reader import Run, open_run
from orchestrator.store.tables import read_stream_prefix, record_batch, schema, write_parquet

Row = Mapping[str, object]

# What a kill can cost at the most: this many observations, or those of this long.
_BATCH_ROWS = 512
_FLUSH_SECONDS = 1.0
# For how a trial ended: an error, its details and the end of a console, which are bounded; and for meta.json.
_MOST_CELL = 4096  # characters of a text in a table
_ROOM_BYTES = 128 << 10


class TrialWriter:
    """Writes `trials/<id>/`. Any thread may call any method."""

    def __init__(self, directory: Path, trial_id: str) -> None:
        """Make `directory`; it must not exist. Works without a RunWriter, in any process."""
        import pyarrow as pa

        self.directory = directory
        self.trial_id = checked_id("trial", trial_id)
        try:
            self.snapshots.mkdir(parents=True)
        except FileExistsError:
            raise BadInputError(f"{directory} exists: a trial is written once") from None
        self._lock = threading.Lock()
        self._waiting: list[Observation] = []
        self._flushed_at = time.monotonic()
        self._closed = False
        self._failed: OSError | None = None
        keep_room(directory / layout.ROOM, _ROOM_BYTES)
        # OSFile keeps nothing back: a batch is with the kernel when write_batch returns.
        self._sink = pa.OSFile(str(directory / layout.STREAM), "wb")
        self._stream = pa.ipc.new_stream(self._sink, schema())
        self._events = os.open(
            directory / layout.EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    @property
    def snapshots(self) -> Path:
        """The folder for this trial's snapshots."""
        return self.directory / layout.SNAPSHOTS

    @property
    def console_log(self) -> Path:
        """Where the guest's serial console belongs."""
        return self.directory / layout.CONSOLE

    @property
    def host_console_log(self) -> Path:
        """Where that of its host belongs, if the host is a guest of ours."""
        return self.directory / layout.HOST_CONSOLE

    def observe(self, observations: Iterable[Observation]) -> None:
        """Add readings. They reach the file within a second of the next call, at the latest at close."""
        rows = list(observations)
        with self._lock:
            self._must_be_open()
            self._waiting += rows
            overdue = time.monotonic() - self._flushed_at >= _FLUSH_SECONDS
            if overdue or len(self._waiting) >= _BATCH_ROWS:
                self._flush()

    def flush(self) -> None:
        """Put every reading so far into the file."""
        with self._lock:
            self._must_be_open()
            self._flush()

    def record(self, event: Event) -> None:
        """Append one line to events.jsonl; it is with the kernel when this returns.

        Numbers that JSON cannot say (NaN, infinities) become null. Raises OSError, and leaves no half line.
        """
        with self._lock:
            self._must_be_open()
            self._flush()  # what was read before a step is on disk before the step's line
            self._append(event)

    def end(self, event: TrialEnd) -> None:
        """Append how the trial ended, and close it. There is room for that on a disk that is full by now.

        Raises OSError; it is closed all the same.
        """
        try:
            with self._lock:
                self._must_be_open()
                with suppress(OSError):  # it was raised when it happened, or is by `close`
                    self._flush()
                (self.directory / layout.ROOM).unlink(missing_ok=True)
                self._append(event)
        finally:
            self.close()

    def _append(self, event: Event) -> None:
        line = json.dumps(jsonable(event.fields()), allow_nan=False).encode() + b"\n"
        size = os.fstat(self._events).st_size
        try:
            while line:
                line = line[os.write(self._events, line) :]
        except OSError as error:
            os.ftruncate(self._events, size)
            raise _at(self.directory / layout.EVENTS, error) from error

    def close(self) -> None:
        """Turn the stream into observations.parquet. Closing twice is closing once.

        Raises OSError; what was read until then is in the stream, and stays there.
        """
        with self._lock:
            if self._closed:
                return
            failed: OSError | None = None
            try:
                self._flush()
            except OSError as error:
                failed = error
            self._closed = True
            with suppress(OSError):  # a reader wants no end of the stream
                self._stream.close()
            with suppress(OSError):
                self._sink.close()
            (self.directory / layout.ROOM).unlink(missing_ok=True)
            try:
                os.fsync(self._events)
            finally:
                os.close(self._events)
            if failed:
                raise failed
            stream = self.directory / layout.STREAM
            table = read_stream_prefix(stream)
            replace_file(self.directory / layout.OBSERVATIONS, lambda path: write_parquet(table, path))
            stream.unlink()

    def __enter__(self) -> TrialWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self) -> None:
        if self._failed:
            raise _at(self.directory / layout.STREAM, self._failed)
        if self._waiting:
            batch, self._waiting = record_batch(self._waiting), []
            try:
                self._stream.write_batch(batch)
            except OSError as error:
                self._failed = error  # behind half a batch nothing can be read
                raise _at(self.directory / layout.STREAM, error) from error
        self._flushed_at = time.monotonic()

    def _must_be_open(self) -> None:
        if self._closed:
            raise ValueError(f"trial {self.trial_id} is closed")


def _at(path: Path, error: OSError) -> OSError:
    """The same, of a file that has a name."""
    return OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path))


class RunWriter:
    """Writes `results/<run-id>/`."""

    def __init__(self, directory: Path, meta: RunMeta) -> None:
        """For `create`, which is how a run folder begins."""
        self.directory = directory
        self._meta = meta
        self._lock = threading.Lock()

    @classmethod
    def create(cls, results_dir: Path, run_id: str, plan_json: str, meta: Mapping[str, object]) -> RunWriter:
        """Begin a run. The folder appears with plan.json and meta.json in it, or not at all.

        `meta` is what is known of host, versions and command line; `schema_version`, `run`,
        `started_at`, `status` and `writer` are added. Raises BadInputError when the id is taken.
        """
        directory = results_dir / checked_id("run", run_id)
        taken = BadInputError(
            f"{directory} exists already", hint="type the same again: each run gets an id of its own"
        )
        if directory.exists():
            raise taken
        full = RunMeta.model_validate(
            {
                "schema_version": SCHEMA_VERSION,
                "run": run_id,
                "started_at": _now(),
                "status": Status.RUNNING.value,
                "writer": this_process(),
                **jsonable(meta),
            }
        )
        fresh = results_dir / f".{run_id}.{os.getpid()}.new"
        try:
            (fresh / layout.TRIALS).mkdir(parents=True)
            keep_room(fresh / layout.ROOM, _ROOM_BYTES)
            replace_text(fresh / layout.PLAN, plan_json)
            replace_text(fresh / layout.META, _pretty(full.facts()))
            fresh.rename(directory)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if directory.exists() and isinstance(error, OSError):  # another run was quicker
                raise taken from error
            raise
        sync_directory(results_dir)
        return cls(directory, full)

    @classmethod
    def resume(cls, directory: Path) -> RunWriter:
        """Go on writing a run that has ended, whoever wrote it. `resumed_at` has the times of that."""
        meta = open_run(directory).meta
        run = cls(directory, meta)
        keep_room(directory / layout.ROOM, _ROOM_BYTES)
        run.update_meta(
            **({"error": "", "error_details": ""} if meta.error else {}),
            status=Status.RUNNING.value,
            writer=this_process().model_dump(),
            resumed_at=[*meta.resumed_at, _now()],
        )
        return run

    def set_aside(self, trial_id: str) -> None:
        """Move a trial that was lost out of `trials/`, so that it can be done again."""
        source = self.trial_directory(trial_id)
        if source.exists():
            folder = self.directory / layout.LOST
            folder.mkdir(exist_ok=True)
            taken = sum(path.name.startswith(f"{trial_id}.") for path in folder.iterdir())
            source.rename(folder / f"{trial_id}.{taken + 1}")

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.directory.name

    def reading(self, plan: PlanRecord) -> Run:
        """The run as it is now, with its plan, which is not read again."""
        return Run(self.directory, self._meta, plan)

    def update_meta(self, **facts: object) -> None:
        """Add what was learned since, such as `accel` and `second_level`."""
        with self._lock:
            self._meta = RunMeta.model_validate({**self._meta.facts(), **jsonable(facts)})
            replace_text(self.directory / layout.META, _pretty(self._meta.facts()))

    def trial_directory(self, trial_id: str) -> Path:
        """Where a trial's files go; made by `TrialWriter`."""
        return self.directory / layout.TRIALS / checked_id("trial", trial_id)

    def trial(self, trial_id: str) -> TrialWriter:
        """Begin a trial."""
        return TrialWriter(self.trial_directory(trial_id), trial_id)

    def finish(self, status: Status | str, exit_code: int, **facts: object) -> None:
        """Say how the run ended. There is room for that on a disk that is full by now."""
        (self.directory / layout.ROOM).unlink(missing_ok=True)
        self.update_meta(status=Status(status).value, exit_code=int(exit_code), finished_at=_now(), **facts)


def note_exit(directory: Path, exit_code: int, error: str) -> None:
    """Have meta.json of a run that has ended say what the caller got, and why: its result was not printed.

    What became of the run's trials stays as it is.
    """
    RunWriter(directory, open_run(directory).meta).update_meta(exit_code=int(exit_code), error=error)


def write_table(directory: Path, name: str, rows: Sequence[Row], at_least: Sequence[str]) -> None:
    """Write a table of a run folder. The columns are `at_least` and the keys, in the order they come up."""
    replace_text(directory / name, as_csv(rows, at_least))


def append_to_table(directory: Path, name: str, rows: Sequence[Row], at_least: Sequence[str]) -> bool:
    """Add rows to a table as `write_table` writes it, without reading those that are there.

    Makes the table where there is none. False, and nothing is written, if a row has a column that the table
    has not. Raises OSError, also for a link, and leaves no half row.
    """
    path = directory / name
    if not path.exists():
        write_table(directory, name, rows, at_least)
        return True
    with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as file:
        columns = next(csv.reader([file.readline().decode()]), [])
        if not {*at_least, *(key for row in rows for key in row)} <= {*columns}:
            return False
        data = "".join(as_csv(rows, columns).partition("\n")[2:]).encode("utf-8", "replace")
        size = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            file.truncate(size)
            raise _at(path, error) from error
    return True


def as_csv(rows: Sequence[Row], at_least: Sequence[str]) -> str:
    """CSV with `\\n` line ends; None is an empty cell, whole floats are written as integers.

    Texts are on one line, printable and bounded: people look at such a file with cat(1), too.
    """
    columns = list(dict.fromkeys([*at_least, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(column) for column in columns])
    writer.writerows([[_cell(row.get(column)) for column in columns] for row in rows])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else repr(value)
    return clean(value, _MOST_CELL) if isinstance(value, str) else value


def jsonable(value: Any) -> Any:  # JSON is what it is
    """`value` as JSON can say it: no NaN and no infinity, and text for what it has no words for."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

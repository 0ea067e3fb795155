"""Reads run folders: whole ones, unfinished ones, and those of a run that was killed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import ValidationError

from orchestrator.errors import BadInputError
from orchestrator.jsontext import parse_json
from orchestrator.records.base import Record
from orchestrator.records.events import Event, SnapshotTaken, TrialBegin, TrialEnd, of_kind, read_event
from orchestrator.records.meta import RunMeta
from orchestrator.records.plan import PlanRecord, TrialRecord
from orchestrator.records.unit import UnitRecord
from orchestrator.records.versions import SCHEMA_VERSION, migrated_line, must_be_readable
from orchestrator.store import layout
from orchestrator.store.layout import Status
from orchestrator.store.links import must_have_its_own_files, must_stay_inside
from orchestrator.store.liveness import status_of
from orchestrator.store.tables import read_observations
from orchestrator.suggestion import nearest

if TYPE_CHECKING:
    import pandas as pd

Part = TypeVar("Part", bound=Record)


_MOST_UNIT_BYTES: Final = 1 << 20
UNFINISHED: Final = "unfinished"
"""The outcome of a trial or step that did not end."""


@dataclass(frozen=True)
class ListedTrial:
    """A trial as plan.json lists it. `differs` are the settings in which its arm differs."""

    id: str
    arm: str
    repeat: int
    differs: Mapping[str, str]
    seed: int = 0
    warm_up: bool = False


@dataclass(frozen=True)
class TrialFolder:
    """`trials/<id>/` of a trial that has begun; `schema_version` is that of its run."""

    directory: Path
    planned: ListedTrial
    schema_version: int = SCHEMA_VERSION

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.planned.id

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Events in the order of writing, without a torn last line."""
        return read_events(self.directory, self.schema_version)

    def observations(self) -> pd.DataFrame:
        """See `read_observations`."""
        return read_observations(self.directory)

    @property
    def ended(self) -> TrialEnd | None:
        """How it ended, if it came to an end."""
        return next(reversed(of_kind(self.events, TrialEnd)), None)

    @property
    def outcome(self) -> str:
        """`trial.end`'s outcome, or `unfinished`."""
        return (self.ended.outcome or "unknown") if self.ended else UNFINISHED

    @property
    def host(self) -> str:
        """The name of the host that it ran on; empty where it does not say."""
        if self.unit:
            return self.unit.host_name
        return next((one.host for one in of_kind(self.events, TrialBegin) if one.host), "")

    @cached_property
    def unit(self) -> UnitRecord | None:
        """Its unit.json, if it was executed by itself."""
        try:
            return read_unit(self.directory)
        except (FileNotFoundError, BadInputError):  # for whoever gathers it to complain of
            return None

    def snapshot_path(self, event: SnapshotTaken) -> Path | None:
        """The file of a snapshot, if it is there. Never one outside of this trial."""
        name = Path(event.file).name
        path = self.directory / layout.SNAPSHOTS / name
        return path if name and path.is_file() else None


@dataclass(frozen=True)
class Run:
    """A run folder. Reads files when they are asked for."""

    directory: Path
    meta: RunMeta
    plan: PlanRecord

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.directory.name

    @property
    def scenario(self) -> str:
        """The scenario's name."""
        return self.plan.scenario

    @property
    def status(self) -> Status:
        """What became of the run, as far as it can be known from here."""
        return status_of(self.meta)

    @property
    def at_once(self) -> bool:
        """Whether any of its trials ran side by side."""
        return (self.meta.trials_at_once or 0) > 1

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The arms in the order in which the scenario names them, whatever order the trials ran in."""
        return tuple(arm.name for arm in self.plan.arms)

    @cached_property
    def planned(self) -> tuple[ListedTrial, ...]:
        """Every trial of the plan that counts, in its order: all but the warm-ups."""
        return tuple(trial for trial in planned_trials(self.plan) if not trial.warm_up)

    @cached_property
    def trials(self) -> tuple[TrialFolder, ...]:
        """Trials that have begun and count: those of the plan in its order, then any others by name."""
        return tuple(trial for trial in self._begun if not trial.planned.warm_up)

    @property
    def warm_ups(self) -> tuple[TrialFolder, ...]:
        """Trials that have begun and do not count."""
        return tuple(trial for trial in self._begun if trial.planned.warm_up)

    def trial(self, trial_id: str) -> TrialFolder | None:
        """One of the plan, without a look at the others; None unless it has begun and counts."""
        folder = self.directory / layout.TRIALS / layout.checked_id("trial", trial_id)
        one = next((trial for trial in self.plan.trials if trial.id == trial_id), None)
        if one is None or one.warm_up or not folder.is_dir():
            return None
        self._must_be_inside(folder)
        return TrialFolder(folder, _listed(one, _differs(self.plan)), self.meta.schema_version)

    def _must_be_inside(self, folder: Path) -> None:
        must_have_its_own_files(folder, self.directory)
        must_have_its_own_files(folder / layout.SNAPSHOTS, self.directory)

    @cached_property
    def _begun(self) -> tuple[TrialFolder, ...]:
        root = self.directory / layout.TRIALS
        must_have_its_own_files(root, self.directory)
        # A folder with another name than a trial can have is none; a hidden one is a trial by itself that has
        # not ended (`orchestrator.run.unit`), or never will.
        names = (path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else ()
        there = {name for name in names if layout.is_id(name)}
        for name in there:
            self._must_be_inside(root / name)
        known = {trial.id: trial for trial in planned_trials(self.plan)}
        others = {name: ListedTrial(name, name, 0, {}) for name in sorted(there - set(known))}
        version = self.meta.schema_version
        return tuple(
            TrialFolder(root / name, trial, version)
            for name, trial in {**known, **others}.items()
            if name in there
        )

    @property
    def done(self) -> int:
        """Number of trials that came to their end."""
        return sum(trial.ended is not None for trial in self.trials)


def open_run(directory: Path) -> Run:
    """The run in `directory`.

    Raises BadInputError when it is none, or one of another version, or something in it leads out of it
    (`store/links.py`).
    """
    must_have_its_own_files(directory, directory)
    try:
        meta = parse_json((directory / layout.META).read_text(encoding="utf-8"))
        plan = parse_json((directory / layout.PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(
            f"{directory} is not a run folder: {Path(str(error.filename)).name} is missing",
            hint=_list_of(directory.parent),
        ) from None
    except ValueError as error:
        raise BadInputError(f"{directory}: plan.json or meta.json is not JSON: {error}") from None
    must_be_readable(directory, meta.get("schema_version") if isinstance(meta, dict) else None)
    return Run(
        directory,
        _record(directory / layout.META, RunMeta, meta),
        _record(directory / layout.PLAN, PlanRecord, plan),
    )


def _record(path: Path, kind: type[Part], value: object) -> Part:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "it"
        raise BadInputError(
            f"{path}: {where}: {fault['msg']}", hint="the file was changed after the run wrote it"
        ) from None


def _list_of(results_dir: Path) -> str:
    return f"orchestrator list --results {shlex.quote(str(results_dir))}   shows the runs that there are"


def list_runs(results_dir: Path) -> list[Run | BadInputError]:
    """Runs in `results_dir`, the newest first; an error for each folder that cannot be read."""
    runs: list[Run] = []
    errors: list[BadInputError] = []
    for directory in sorted(_run_directories(results_dir), reverse=True):
        try:
            runs.append(_open_inside(directory, results_dir))
        except BadInputError as error:
            errors.append(error)
    runs.sort(key=_started, reverse=True)
    return [*runs, *errors]


def _open_inside(directory: Path, results_dir: Path) -> Run:
    if directory.is_symlink():
        must_stay_inside(directory, results_dir)
    return open_run(directory)


def find_run(name: str, results_dir: Path) -> Run:
    """The run that `name` means: an id, the unique beginning of one, `last`, or a path to a folder.

    A word without a slash is looked up in `results_dir` and cannot lead out of it, by a link either. A path
    is taken as it is: whoever types one may mean a link.
    """
    if "/" in name:
        return open_run(Path(name))
    directories = {path.name: path for path in _run_directories(results_dir)}
    if name in directories:
        return _open_inside(directories[name], results_dir)
    if name == "last":
        runs = [run for run in list_runs(results_dir) if isinstance(run, Run)]
        if runs:
            return runs[0]
    matching = sorted(run_id for run_id in directories if name and run_id.startswith(name))
    if len(matching) == 1:
        return _open_inside(directories[matching[0]], results_dir)
    if matching:
        some = ", ".join(matching[:8])
        raise BadInputError(f"{name!r} could be {len(matching)} runs: {some}", hint="type more of the id")
    if not directories:
        hint = "there is none yet: orchestrator run SCENARIO   makes one; --results names another folder"
    elif near := nearest(name, [*directories, "last"]):
        hint = f"did you mean {near!r}?   {_list_of(results_dir)}"
    else:
        hint = _list_of(results_dir)
    raise BadInputError(f"no run called {name!r} in {results_dir}", hint=hint)


def read_events(trial_directory: Path, schema_version: int = SCHEMA_VERSION) -> tuple[Event, ...]:
    """Lines of events.jsonl, which were written in that version. A last line that was torn off is left out;
    any other bad line is an error."""
    path = trial_directory / layout.EVENTS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    events = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            events.append(read_event(migrated_line(parse_json(line), schema_version)))
        except (ValueError, TypeError, AttributeError):
            if number < len(lines) - 1:
                raise BadInputError(
                    f"{path}:{number}: not an event", hint="the file was changed after the run wrote it"
                ) from None
    return tuple(events)


def read_unit(trial_directory: Path) -> UnitRecord:
    """unit.json of a trial that was executed by itself. Raises FileNotFoundError where there is none, and
    BadInputError for what is no such file."""
    path = trial_directory / layout.UNIT
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_UNIT_BYTES:
            raise BadInputError(f"{path} is not a file of ours", hint="fetch it again")
        return UnitRecord.model_validate(parse_json(path.read_bytes()))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BadInputError(f"{path}: damaged: {what}", hint="fetch it again") from None


def planned_trials(plan: PlanRecord) -> tuple[ListedTrial, ...]:
    """The trials that plan.json lists, each with that in which its arm differs."""
    differs = _differs(plan)
    return tuple(_listed(trial, differs) for trial in plan.trials)


def _differs(plan: PlanRecord) -> dict[str, Mapping[str, str]]:
    return {arm.name: arm.differs for arm in plan.arms}


def _listed(trial: TrialRecord, differs: Mapping[str, Mapping[str, str]]) -> ListedTrial:
    return ListedTrial(
        id=trial.id,
        arm=trial.arm,
        repeat=trial.repeat,
        differs=differs.get(trial.arm, {}),
        seed=trial.seed,
        warm_up=trial.warm_up,
    )


def _started(run: Run) -> tuple[str, str]:
    return run.meta.started_at, run.id


def _run_directories(results_dir: Path) -> list[Path]:
    if not results_dir.is_dir():
        return []
    return [path for path in results_dir.iterdir() if (path / layout.META).is_file() and path.name[0] != "."]

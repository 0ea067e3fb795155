"""Versions of the run folder: which are read, and how one is read as the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from orchestrator.errors import BadInputError
from orchestrator.records.step import Direction, Effect, Mechanism, StepOutcome, Target
from orchestrator.units import PAGE_BYTES

SCHEMA_VERSION: Final = 3
"""What this program writes (docs/run-folder.md lists the versions)."""

Value = TypeVar("Value")

Row: TypeAlias = dict[str, str]
Line: TypeAlias = dict[str, Any]  # JSON is what it is
Tables: TypeAlias = Mapping[str, list[Row]]
"""Rows of tables, by the name of the file."""


@dataclass(frozen=True)
class Migration:
    """How to read a folder of one version as one of the next.

    Each function fills in what is missing and leaves what is there: `resume` adds trials of the newer version
    to a folder of the older one.
    """

    event: Callable[[Line], Line]
    tables: Callable[[Tables], Tables]


# What actions of version 1 did to memory, of which their events say no more than the name.
_EFFECTS: Final[Mapping[str, Effect]] = {
    "plug": Effect(Mechanism.VIRTIO_MEM, Target.GUEST, Direction.GIVE),
    "unplug": Effect(Mechanism.VIRTIO_MEM, Target.GUEST, Direction.TAKE),
    "host_plug": Effect(Mechanism.VIRTIO_MEM, Target.HOST, Direction.GIVE),
    "host_unplug": Effect(Mechanism.VIRTIO_MEM, Target.HOST, Direction.TAKE),
    "plug_dimm": Effect(Mechanism.PC_DIMM, Target.GUEST, Direction.GIVE),
    "unplug_dimm": Effect(Mechanism.PC_DIMM, Target.GUEST, Direction.TAKE),
    "online": Effect(Mechanism.MEMORY_BLOCK, Target.GUEST, Direction.GIVE),
    "offline": Effect(Mechanism.MEMORY_BLOCK, Target.GUEST, Direction.TAKE),
    "deflate": Effect(Mechanism.BALLOON, Target.GUEST, Direction.GIVE),
    "inflate": Effect(Mechanism.BALLOON, Target.GUEST, Direction.TAKE),
    "report_free": Effect(Mechanism.FREE_PAGE_REPORTING, Target.GUEST, Direction.TAKE),
}


_FREED: Final = "second_level_"


def _event_1_to_2(line: Line) -> Line:
    """Version 2 says of the end of each step what such a step does to memory."""
    if line.get("event") != "step.end":
        return line
    effect = _EFFECTS.get(str(line.get("action")), Effect())
    return {
        "mechanism": effect.mechanism,
        "target": effect.target,
        "direction": effect.direction,
        **line,
    }


def _tables_1_to_2(tables: Tables) -> Tables:
    """Version 2 says of each trial why it is left out, with what start and of which kernel it was, and takes
    nothing that a host counts for the second level of a guest under TCG."""
    summary = [_summary_row_1_to_2(row) for row in tables.get("summary.csv", ())]
    emulated = {row["trial"] for row in summary if row.get("accel") == "tcg"}
    moments = [
        {**row, "second_level_bytes": ""} if row["trial"] in emulated else row
        for row in tables.get("moments.csv", ())
    ]
    freed = tables.get("second_level_policies.csv")
    if freed is None:
        freed = [freed for row in tables.get("snapshots.csv", ()) for freed in _second_level_1_to_2(row)]
    tables = {**tables, "second_level_policies.csv": freed}
    return {**tables, "summary.csv": summary, "moments.csv": moments}


def _second_level_1_to_2(row: Row) -> Iterator[Row]:
    """Version 2 has a row for what each policy would free of second-level tables; it was a column of
    snapshots.csv, the number of tables."""
    columns = {name.removeprefix(_FREED): text for name, text in row.items() if name.startswith(_FREED)}
    for policy, tables in columns.items():
        if policy != "tables" and tables:
            yield {
                "trial": row["trial"],
                "snapshot": row["snapshot"],
                "policy": policy,
                "tables_freed": tables,
                "bytes_freed": str(int(tables) * PAGE_BYTES),
                "origin": "modelled",
            }


def _summary_row_1_to_2(row: Row) -> Row:
    left_out = ""
    if row["outcome"] != "completed":
        left_out = f"did not complete: {row['outcome']}"
    elif row.get("unplug_outcome") == StepOutcome.TIMEOUT:  # as far as its columns tell
        left_out = "had not settled: unplug"
    empty = dict.fromkeys(("start", "state", "kernel_build", "kernel_sha256"), "")
    return {**empty, "left_out": left_out, **row}


COLUMNS_2_TO_3: Final[Mapping[str, Mapping[str, str]]] = {
    "snapshots.csv": {
        "moved": "frames_changed",
        "blocks_held": "blocks_pinned",
        "blocks_together": "blocks_pinned_by_several",
        "blocks_following": "blocks_pinned_by_memmap_only",
        "blocks_no_room": "blocks_no_migration_target",
    },
    "blame.csv": {"alone": "sole_blocker", "frees": "freeable", "named": "attributed"},
}
"""Version 3 calls them as docs/glossary.md does; by the name of the file."""
_FIELDS_2_TO_3: Final[Mapping[str, Mapping[str, str]]] = {
    "step.end": {"said": "message"},
    "dimm.answer": {"said": "message"},
    "snapshot": {"moved": "frames_changed"},
}
"""The same of events, by their name."""


def _event_2_to_3(line: Line) -> Line:
    """Version 3 has other names for some fields."""
    return _renamed(line, _FIELDS_2_TO_3.get(str(line.get("event")), {}))


def _tables_2_to_3(tables: Tables) -> Tables:
    """Version 3 has other names for some columns."""
    return {
        name: [_renamed(row, COLUMNS_2_TO_3.get(name, {})) for row in rows] for name, rows in tables.items()
    }


def _renamed(fields: dict[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """Under the new names; what has one already is from a trial that was resumed, and stays."""
    older = {name for name in fields if names.get(name, name) != name and names[name] in fields}
    return {names.get(name, name): value for name, value in fields.items() if name not in older}


MIGRATIONS: Final[Mapping[int, Migration]] = {
    1: Migration(_event_1_to_2, _tables_1_to_2),
    2: Migration(_event_2_to_3, _tables_2_to_3),
}
"""By the version that they read."""


def is_readable(version: object) -> bool:
    """Whether a folder of that version can be read."""
    known = isinstance(version, int) and not isinstance(version, bool)
    return known and version in {SCHEMA_VERSION, *MIGRATIONS}


def must_be_readable(what: object, version: object) -> None:
    """Raise BadInputError unless a folder of that version can be read."""
    if is_readable(version):
        return
    raise BadInputError(
        f"{what} is a run folder of schema version {version}; this program reads "
        f"{min(MIGRATIONS)} to {SCHEMA_VERSION}",
        hint=f"use the orchestrator release that writes schema version {version} "
        "(docs/run-folder.md lists the versions)",
    )


def migrated_line(line: Line, version: int) -> Line:
    """A line of events.jsonl of that version, as this one has it."""
    for step in range(version, SCHEMA_VERSION):
        line = MIGRATIONS[step].event(line)
    return line


def migrated_tables(tables: Tables, version: int) -> Tables:
    """Tables of that version, as this one has them."""
    for step in range(version, SCHEMA_VERSION):
        tables = MIGRATIONS[step].tables(tables)
    return tables

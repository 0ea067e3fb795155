"""The run folder: its writer and its reader (docs/run-folder.md)."""

from orchestrator.records.events import Event
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.store.layout import Status, checked_id
from orchestrator.store.reader import (
    UNFINISHED,
    ListedTrial,
    Run,
    TrialFolder,
    find_run,
    list_runs,
    open_run,
    read_events,
    read_unit,
)
from orchestrator.store.tables import read_observations
from orchestrator.store.writer import RunWriter, TrialWriter, append_to_table, note_exit, write_table

__all__ = [
    "SCHEMA_VERSION",
    "UNFINISHED",
    "Event",
    "ListedTrial",
    "Run",
    "RunWriter",
    "Status",
    "TrialFolder",
    "TrialWriter",
    "append_to_table",
    "checked_id",
    "find_run",
    "list_runs",
    "note_exit",
    "open_run",
    "read_events",
    "read_observations",
    "read_unit",
    "write_table",
]

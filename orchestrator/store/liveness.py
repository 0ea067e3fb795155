"""Which process writes a run folder, and whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.processes import boot_id, lives, started_ticks
from orchestrator.store.layout import Status


@dataclass(frozen=True)
class Writer:
    """A process, named so that another one with the same number is told apart."""

    pid: int  # this and the next two as in `orchestrator.processes`
    started_ticks: int
    boot_id: str
    hostname: str

    @classmethod
    def me(cls) -> Writer:
        """The calling process."""
        return cls(os.getpid(), started_ticks(os.getpid()) or 0, boot_id(), socket.gethostname())

    def as_json(self) -> dict[str, Any]:
        """As it stands in meta.json under `writer`."""
        return asdict(self)


def status_of(meta: dict[str, Any]) -> Status:
    """What `meta` says, corrected by whether its writer still lives."""
    try:
        said = Status(meta.get("status", ""))
    except ValueError:
        return Status.UNKNOWN
    if said is not Status.RUNNING:
        return said
    try:
        writer = Writer(**meta["writer"])
        return Status.RUNNING if _alive(writer) else _gone(writer)
    except (KeyError, TypeError):
        return Status.UNKNOWN


def _alive(writer: Writer) -> bool:
    here = writer.hostname == socket.gethostname()
    return here and lives(writer.pid, writer.started_ticks, writer.boot_id)


def _gone(writer: Writer) -> Status:
    # The same machine after a reboot has killed it; of another machine nothing is known.
    return Status.KILLED if writer.hostname == socket.gethostname() else Status.UNKNOWN

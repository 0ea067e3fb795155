"""Which process writes a run folder, and whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.store.layout import Status

# psutil computes a start time from the boot time, which follows clock adjustments a little.
_START_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class Writer:
    """A process, named so that another one with the same number is told apart."""

    pid: int
    process_started: float  # seconds since the epoch
    hostname: str
    boot_id: str  # /proc/sys/kernel/random/boot_id

    @classmethod
    def me(cls) -> Writer:
        """The calling process."""
        return cls(os.getpid(), psutil.Process().create_time(), socket.gethostname(), _boot_id())

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
    if writer.boot_id != _boot_id() or writer.hostname != socket.gethostname():
        return False
    try:
        process = psutil.Process(writer.pid)
        same = abs(process.create_time() - writer.process_started) <= _START_TOLERANCE_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _gone(writer: Writer) -> Status:
    # The same machine after a reboot has killed it; of another machine nothing is known.
    return Status.KILLED if writer.hostname == socket.gethostname() else Status.UNKNOWN


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""

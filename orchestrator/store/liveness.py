"""Which process writes a run folder, and whether it still lives."""

from __future__ import annotations

import os
import socket

from orchestrator.processes import boot_id, is_alive, started_ticks
from orchestrator.records.meta import RunMeta, WriterProcess
from orchestrator.store.layout import Status


def this_process() -> WriterProcess:
    """The calling process."""
    pid = os.getpid()
    return WriterProcess(
        pid=pid, started_ticks=started_ticks(pid) or 0, boot_id=boot_id(), hostname=socket.gethostname()
    )


def status_of(meta: RunMeta) -> Status:
    """What `meta` says, corrected by whether its writer still lives."""
    try:
        said = Status(meta.status)
    except ValueError:
        return Status.UNKNOWN
    if said is not Status.RUNNING:
        return said
    if meta.writer is None:
        return Status.UNKNOWN
    return Status.RUNNING if _alive(meta.writer) else _gone(meta.writer)


def _alive(writer: WriterProcess) -> bool:
    here = writer.hostname == socket.gethostname()
    return here and is_alive(writer.pid, writer.started_ticks, writer.boot_id)


def _gone(writer: WriterProcess) -> Status:
    # The same machine after a reboot has killed it; of another machine nothing is known.
    return Status.KILLED if writer.hostname == socket.gethostname() else Status.UNKNOWN

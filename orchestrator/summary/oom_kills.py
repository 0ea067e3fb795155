"""Whom OOM killers ended, as kernels' logs have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from orchestrator.records.base import Number
from orchestrator.records.events import Event, OomKilled, of_kind
from orchestrator.records.summary import KilledProcess


def oom_kills_of(events: Sequence[Event]) -> tuple[KilledProcess, ...]:
    """In the order of the trial, those of the host first."""
    return tuple(_killed(event) for event in of_kind(events, OomKilled))


def _killed(event: OomKilled) -> KilledProcess:
    def whole(value: Number | None) -> int | None:
        return None if value is None else int(value)

    counts = [field.name for field in fields(KilledProcess) if field.type == "int | None"]
    return KilledProcess(
        of=event.of,
        workload=event.workload,
        comm=event.comm,
        pid=event.pid,
        out_of=event.out_of,
        uptime_seconds=event.uptime_seconds,
        **{name: whole(getattr(event, name)) for name in counts},
    )

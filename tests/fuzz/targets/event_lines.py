"""events.jsonl of each version, and what is made of events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from orchestrator.records.events import StepEnd, of_kind
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.store import read_events
from orchestrator.summary.integrity import findings_of, integrity_of
from orchestrator.summary.oom_kills import oom_kills_of
from targets.base import GOLDEN, TARGETS, Target, scratch


@TARGETS.register("event-lines")
class EventLines(Target):
    """The first byte of an input says of which version the lines are."""

    name: ClassVar = "event-lines"
    executions: ClassVar = 50_000
    most_bytes: ClassVar = 3_000
    tokens: ClassVar = (
        *(
            '"event": "step.end"',
            '"event": "oom.kill"',
            '"event": "finding"',
            '"event": "kernel.log"',
            '"curve": [[0, 1]]',
        ),
        *(
            '"values": {}',
            '"t_ns": 1',
            '"event": "output"',
            '"event": "dimm.answer"',
            '"outcome": "completed"',
            "\\ud800",
        ),
    )

    def seeds(self) -> Iterator[bytes]:
        for version in (1, 2, 3):
            for path in sorted(GOLDEN.glob(f"run-version-{version}/trials/*/events.jsonl"))[:1]:
                lines = path.read_bytes().splitlines(keepends=True)
                yield bytes([version]) + b"".join(lines)[:3000]
                yield from (bytes([version]) + line for line in lines)
        yield (
            b'\x03{"t_ns": 1, "event": "oom.kill", "pid": 7, "comm": "a", "out_of": "memory", "total_vm_bytes": 4096}\n'
            b'{"t_ns": 2, "event": "finding", "kind": "k", "text": "t", "workload": "w"}\n'
            b'{"t_ns": 3, "event": "kernel.log", "source": "dmesg", "complaints": 1, "lines": ["a"]}\n'
            b'{"t_ns": 4, "event": "output", "text": "x"}\n{"t_ns": 5, "event": "dimm.answer", "slot": 1}\n'
        )

    def feed(self, data: bytes) -> None:
        folder = scratch() / "events"
        folder.mkdir(exist_ok=True)
        (folder / "events.jsonl").write_bytes(data[1:])
        events = read_events(folder, min(max(data[:1][0] if data else 1, 1), SCHEMA_VERSION))
        list(integrity_of(events))
        findings_of(events)
        oom_kills_of(events)
        for end in of_kind(events, StepEnd):
            end.value("requested_bytes")
            _ = end.takes, end.resizes_guest, end.fields()

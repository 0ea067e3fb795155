"""Folders of single trials that came from elsewhere, given to `gather`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

from orchestrator.records.meta import WriterProcess
from orchestrator.records.unit import UnitRecord
from orchestrator.records.versions import SCHEMA_VERSION
from orchestrator.run.gather import gather
from targets.base import GOLDEN, TARGETS, Target, scratch
from targets.plan_json import a_plan

_FOREIGN = GOLDEN / "run-version-3" / "trials" / "6.12-01"


@cache
def _units() -> Path:
    """Two trials of a plan, each by itself."""
    folder = scratch() / "units"
    for trial in a_plan().trials:
        unit = folder / trial.id
        unit.mkdir(parents=True)
        for name in ("events.jsonl", "console.log", "observations.parquet"):
            shutil.copy(_FOREIGN / name, unit / name)
        record = UnitRecord(
            schema_version=SCHEMA_VERSION,
            trial=trial.id,
            plan_sha256=a_plan().sha256,
            writer=WriterProcess(pid=1, started_ticks=1, boot_id="b", hostname="h"),
            started_at="2026-01-01T00:00:00+00:00",
            began_ns=1,
            ended_ns=2,
            facts={
                "accel": "tcg",
                "host": {"name": "h", "kernel": "6.1", "cpu": "c", "cpus": 2, "memory_bytes": 1 << 30},
            },
        )
        (unit / "unit.json").write_text(record.to_json())
    return folder


@TARGETS.register("unit-folder")
class UnitFolder(Target):
    """The first line of an input says which file of a trial is another, the rest what is in it."""

    name: ClassVar = "unit-folder"
    executions: ClassVar = 80
    most_bytes: ClassVar = 6_000
    seconds: ClassVar = 30.0
    tokens: ClassVar = (
        "unit.json\n",
        "events.jsonl\n",
        "observations.parquet\n",
        '"facts":',
        '"writer":',
        '"trial": "../x"',
    )

    def seeds(self) -> Iterator[bytes]:
        unit = _units() / a_plan().trials[0].id
        for path in sorted(unit.iterdir()):
            content = path.read_bytes()
            if len(content) < self.most_bytes:
                yield path.name.encode() + b"\n" + content

    def feed(self, data: bytes) -> None:
        folder, results = scratch() / "given", scratch() / "gathered"
        for one in (folder, results):
            shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(_units(), folder)
        name, _, content = data.partition(b"\n")
        if name.decode(errors="replace") in {
            "unit.json",
            "events.jsonl",
            "observations.parquet",
            "console.log",
        }:
            (folder / a_plan().trials[0].id / name.decode()).write_bytes(content)
        results.mkdir()
        gather(a_plan(), [folder], results / "r")

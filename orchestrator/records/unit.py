"""unit.json: where and when one trial took place that was executed by itself (`orchestrator trial`)."""

from __future__ import annotations

from pydantic import Field

from orchestrator.records.base import Record, Text, UtsName
from orchestrator.records.meta import Facts, WriterProcess


class UnitRecord(Record):
    """`plan_sha256` says of which plan; `facts` are what meta.json of a run has of its host.

    `began_ns` and `ended_ns` are CLOCK_MONOTONIC of the boot that `writer` names. `host` is what the host of
    the guest is called, empty where an older version does not say.
    """

    schema_version: int
    trial: Text
    host: UtsName = ""
    plan_sha256: Text
    writer: WriterProcess
    started_at: Text
    began_ns: int
    ended_ns: int
    facts: Facts = Field(default_factory=dict)

    @property
    def host_name(self) -> str:
        """The host; where it is not named, the machine of the process."""
        return self.host or self.writer.hostname

    def to_json(self) -> str:
        """As it stands in unit.json."""
        return self.model_dump_json(indent=2) + "\n"

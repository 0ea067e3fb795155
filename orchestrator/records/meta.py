"""meta.json: when, where and with which versions a run took place, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from orchestrator.records.base import OptionalNumber, Record, Text, UtsName, bounded
from orchestrator.records.hosts import HostRecord, hosts_by_name

Facts = dict[str, JsonValue]


class WriterProcess(Record):
    """The process that writes the folder, named so that it is not mistaken for another one of that number."""

    pid: int  # this and the next two as in `orchestrator.processes`
    started_ticks: int
    boot_id: str
    hostname: str


class RunMeta(Record):
    """What is known of a run. Facts that no field is for are kept as well: reports show all."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: object) -> object:
        return bounded(value)

    schema_version: int
    run: Text = ""
    started_at: Text = ""
    status: Text = ""
    writer: WriterProcess | None = None
    command_line: JsonValue = None
    git_commit: Text = ""
    host: Facts = Field(default_factory=dict)
    versions: Facts = Field(default_factory=dict)
    accel: Text = ""
    accel_reason: Text = ""
    accel_probed_at: Text = ""
    second_level: Text = ""
    hypervisor: Facts = Field(default_factory=dict)
    image: Facts = Field(default_factory=dict)
    image_seconds: OptionalNumber = None
    boots_seconds: OptionalNumber = None
    boots_at_once: int | None = None
    trials_at_once: int | None = None
    hosts: Annotated[dict[UtsName, HostRecord], BeforeValidator(hosts_by_name)] = Field(default_factory=dict)
    """The hosts of trials by the names that these give them, where there are several."""
    resumed_at: tuple[Text, ...] = ()
    exit_code: int | None = None
    finished_at: Text = ""
    error: Text = ""
    """What kept the run from its end, or its result from its caller, if that was no trial's."""
    error_details: Text = ""

    def facts(self) -> dict[str, Any]:
        """All that was said, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

"""plan.json: what was to be done, trial by trial, as it is written and as it is read back.

`orchestrator.plan.Plan` is the same with devices, settings and actions checked, which takes the version that
wrote it; whoever only reads a run needs no more than this.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from orchestrator.records.base import Name, Record, Settings, Text

Object = dict[str, JsonValue]
"""A part of the plan as the JSON that it is: sizes are bytes, durations seconds."""


class ArmRecord(Record):
    """An arm. `differs` are the settings by which a table tells it from the others."""

    name: Name
    kernel: Text = ""
    kernel_args: str | None = None
    setup: Object | None = None
    machine: Object | None = None
    host_kernel: str | None = None
    host_setup: Object | None = None
    start: str | None = None
    differs: Settings = Field(default_factory=dict)


class TrialRecord(Record):
    """One execution of one arm. `steps` are actions by name, with their parameters."""

    id: Name
    arm: Name
    repeat: int = 1
    order: int = 0
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    boot: int = 1
    warm_up: bool = False
    steps: list[JsonValue] | None = None


class PlanRecord(Record):
    """A scenario with every choice made."""

    format: int = 1
    scenario: Text = ""
    description: Text = ""
    scenario_version: int = 0
    scenario_path: str = ""
    scenario_sha256: str = ""
    guest: str | None = None
    host: str = "local"
    host_machine: Object | None = None
    accel: Text = ""
    clock: str = "time"
    start: str | None = None
    times: str = "measured"
    sample_every_seconds: float = 0.0
    deadline_seconds: float = 0.0
    seed: int = 0
    repeats: int = 1
    boots: int = 1
    arms: tuple[ArmRecord, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    requires: Object | None = None
    expect: tuple[JsonValue, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)

    def arm(self, name: str) -> ArmRecord | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> str:
        """As it stands in plan.json."""
        # Its hash names the plan: one that requires nothing has the text that it had before there was this.
        return self.model_dump_json(indent=2, exclude=set() if self.requires else {"requires"})

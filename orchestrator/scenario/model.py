"""A scenario: as it is written in the file (`ScenarioText`), and with its arms resolved (`Scenario`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, StrictInt

from orchestrator.actions.base import Action
from orchestrator.host.machine import Frozen, Machine
from orchestrator.units import Duration
from orchestrator.yamlfile import YamlFile


def _matching(pattern: str, wrong: str, right: str) -> AfterValidator:
    def check(value: str | int) -> str | int:
        if not re.fullmatch(pattern, str(value)):
            raise ValueError(f"{str(value)[:80]!r} {wrong}; {right}")
        return value

    return AfterValidator(check)


_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_REDIS_KEY = r"[a-z][a-z0-9-]*"
_LINE = r"[^\x00-\x1f\x7f-\x9f]*"


def is_name(text: str) -> bool:
    """True for what can name a scenario, a guest or an arm, and so a folder."""
    return re.fullmatch(_NAME, text) is not None


Name: TypeAlias = Annotated[
    str,
    _matching(
        _NAME, "cannot name a folder", "use up to 64 of a-z 0-9 . _ - and begin with a letter or digit"
    ),
    Field(json_schema_extra={"pattern": f"^{_NAME}$"}),
]
RedisKey: TypeAlias = Annotated[
    str,
    _matching(_REDIS_KEY, "is not a directive of redis.conf", "write it as in `maxmemory-policy`"),
    Field(json_schema_extra={"pattern": f"^{_REDIS_KEY}$"}),
]
_one_line = _matching(_LINE, "has a control character", "write it in one line")
Line: TypeAlias = Annotated[str, _one_line]
# A line of redis.conf each: nothing may begin a second one.
RedisValue: TypeAlias = Annotated[str | StrictInt, _one_line]
Accel: TypeAlias = Literal["auto", "kvm", "tcg"]

DEFAULT_DEADLINE_SECONDS = 3600.0


class Setup(Frozen):
    """What the playbook sets in the guest before the first step."""

    online_policy: Literal["online", "online_kernel", "online_movable"] = "online"
    """How the guest onlines plugged memory (`/sys/devices/system/memory/auto_online_blocks`)."""
    thp: Literal["image", "always", "madvise", "never"] = "image"
    """Transparent huge pages; `image` leaves what the image has."""
    redis_config: dict[RedisKey, RedisValue] = Field(default_factory=dict)
    """Directives of redis.conf."""


class ArmText(Frozen):
    """What differs in one arm; everything else is the scenario's."""

    kernel: str | None = None
    """A kernel of the guest's definition, or a path (with a `/`) to a bzImage."""
    setup: dict[str, Any] = Field(default_factory=dict)
    """Keys of the scenario's `setup` that differ."""
    machine: dict[str, Any] = Field(default_factory=dict)
    """Keys of the scenario's `machine` that differ."""


class Body(Frozen):
    """A scenario without its arms; a scenario is checked as one body per arm."""

    version: Literal[1]
    """Version of this file format."""
    name: Name
    """Short name; run folders begin with it."""
    description: Line = ""
    """One sentence for people."""
    guest: Name
    """What is booted: guests/<guest>.yaml."""
    kernel: str | None = None
    """Kernel of the arms that name none; without it, the first of the guest's definition."""
    accel: Accel = "auto"
    """`kvm`, `tcg` (software emulation), or `auto`: kvm where there is one."""
    machine: Machine
    """The guest's devices."""
    setup: Setup = Setup()
    """What the playbook sets in the guest."""
    sample_every: Annotated[Duration, Field(ge=0.01)] = 1.0
    """Time between two readings of every probe."""
    deadline: Annotated[Duration, Field(gt=0)] = DEFAULT_DEADLINE_SECONDS
    """A trial that takes longer is ended, with outcome `timeout`."""
    repeats: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    """Trials of each arm."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 1
    """Seed of the order of the trials and of what the workloads do."""
    steps: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    """What happens in a trial, in order; each step is one action with its parameters."""


ArmTexts: TypeAlias = Annotated[dict[Name, ArmText | None], Field(min_length=1, max_length=100)]


class ScenarioText(Body):
    """A scenario file."""

    arms: ArmTexts
    """What is compared: a name for each arm, and what differs in it."""


class ArmsText(BaseModel):
    """The arms of a scenario file, whatever else it has."""

    arms: ArmTexts


class Arm(Frozen):
    """One combination of what is compared, complete.

    `kernel` is a name in the guest's definition or the absolute path of a bzImage.
    """

    name: Name
    kernel: str
    setup: Setup
    machine: Machine

    @property
    def kernel_is_path(self) -> bool:
        """True when the kernel is a file of the user."""
        return "/" in self.kernel


@dataclass(frozen=True)
class Step:
    """An action and the name that it is registered under."""

    name: str
    action: Action


@dataclass(frozen=True)
class Scenario:
    """A scenario without faults. `views` has, for each arm, the file with that arm written into it."""

    file: YamlFile
    views: Mapping[str, YamlFile]
    body: Body
    arms: tuple[Arm, ...]
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Its short name."""
        return self.body.name

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self.file.name

"""A scenario: as it is written in the file (`ScenarioText`), and with its arms resolved (`Scenario`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictInt,
    ValidationInfo,
    field_validator,
)

from orchestrator.actions.base import Action
from orchestrator.errors import BadInputError, Problem
from orchestrator.host.kvm_host import NESTED_KERNEL, NESTED_MACHINE
from orchestrator.host.machine import Frozen, HostSetup, Machine
from orchestrator.host_kinds import LOCAL
from orchestrator.host_kinds.base import forms, scenario_pattern
from orchestrator.scenario.expect import Expectation
from orchestrator.suggestion import suggest
from orchestrator.units import MIB, PAGE_BYTES, Duration, Size
from orchestrator.yamlfile import YamlFile


def _matching(pattern: str, wrong: str, right: str) -> AfterValidator:
    def check(value: str | int) -> str | int:
        if not re.fullmatch(pattern, str(value)):
            raise ValueError(f"{str(value)[:80]!r} {wrong}; {right}")
        return value

    return AfterValidator(check)


_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_REDIS_KEY = r"[a-z][a-z0-9-]*"
_SYSCTL_NAME = r"[a-z0-9_][a-z0-9_./-]*"
_KERNEL_ARGS = r"[ -~]*"
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
SysctlName: TypeAlias = Annotated[
    str,
    _matching(_SYSCTL_NAME, "is not the name of a sysctl", "write it as in `vm.max_map_count`"),
    Field(json_schema_extra={"pattern": f"^{_SYSCTL_NAME}$"}),
]
SysctlValue: TypeAlias = Annotated[Annotated[str, Field(min_length=1)] | StrictInt, _one_line]
# The kernel takes 2048 characters in all (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h).
KernelArgs: TypeAlias = Annotated[
    str,
    Field(max_length=512, json_schema_extra={"pattern": f"^{_KERNEL_ARGS}$"}),
    _matching(_KERNEL_ARGS, "has a character that is not printable ASCII", "write it in one line of ASCII"),
]
_HOST = scenario_pattern()
HostName: TypeAlias = Annotated[
    str,
    _matching(_HOST, "is no host", f"use {forms()}"),
    Field(json_schema_extra={"pattern": f"^({_HOST})$"}),
]
Accel: TypeAlias = Literal["auto", "kvm", "tcg"]
Clock: TypeAlias = Literal["time", "instructions"]
Start: TypeAlias = Literal["warm", "cold"]

DEFAULT_DEADLINE_SECONDS = 3600.0
# An interval about guests needs five boots, and each takes a quarter of a GiB in the cache. Student's t of
# eight is 21 % above its limit.
DEFAULT_MOST_BOOTS = 8
IN = "in"  # the key of a step that is no action
AUTO_MOVABLE = "auto-movable"
DEFAULT_SWAP_BYTES = 512 * MIB
DEFAULT_AUTO_MOVABLE_RATIO_PERCENT = 301  # the kernel's own: auto_movable_ratio, mm/memory_hotplug.c


class Setup(Frozen):
    """What the playbook sets in the guest before the first step."""

    online_policy: Literal["online", "online_kernel", "online_movable", "auto-movable"] = "online"
    """How the guest onlines plugged memory: a word for `/sys/devices/system/memory/auto_online_blocks`, or
    `auto-movable`, the kernel's policy that keeps a ratio of movable memory to the rest."""
    auto_movable_ratio: Annotated[int, Field(strict=True, ge=0, le=10_000)] | None = Field(
        default=None, validate_default=True
    )
    """With `auto-movable`: movable memory in percent of kernel memory, at the most; 301 if not given."""
    thp: Literal["image", "always", "madvise", "never"] = "image"
    """Transparent huge pages; `image` leaves what the image has."""
    swap: Literal["none", "disk", "zram"] = "none"
    """What the guest swaps to: nothing, a file on its disk, or compressed memory of its own (zram)."""
    swap_size: Annotated[Size, Field(ge=MIB, multiple_of=PAGE_BYTES)] | None = Field(
        default=None, validate_default=True
    )
    """With `disk` or `zram`: how much, 512MiB if not given; of zram before compression."""
    redis_config: dict[RedisKey, RedisValue] = Field(default_factory=dict)
    """Directives of redis.conf."""
    sysctl: dict[SysctlName, SysctlValue] = Field(default_factory=dict)
    """Kernel parameters by their sysctl names."""

    @field_validator("auto_movable_ratio")
    @classmethod
    def _ratio_of_its_policy(cls, ratio: int | None, info: ValidationInfo) -> int | None:
        policy = info.data.get("online_policy")
        if policy is None:  # what is wrong with it is reported already
            return ratio
        if policy == AUTO_MOVABLE:
            return DEFAULT_AUTO_MOVABLE_RATIO_PERCENT if ratio is None else ratio
        if ratio is not None:
            right = f"remove it, or use {AUTO_MOVABLE}; in an arm, `auto_movable_ratio: null` removes it"
            raise ValueError(f"it means nothing with online_policy {policy!r}; {right}")
        return None

    @field_validator("swap_size")
    @classmethod
    def _size_of_what_there_is(cls, size: int | None, info: ValidationInfo) -> int | None:
        swap = info.data.get("swap")
        if swap is None:  # what is wrong with it is reported already
            return size
        if swap != "none":
            return DEFAULT_SWAP_BYTES if size is None else size
        if size is not None:
            right = "remove it, or use disk or zram; in an arm, `swap_size: null` removes it"
            raise ValueError(f"it means nothing without swap; {right}")
        return None


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


_ArmList: TypeAlias = Annotated[list[str], Field(min_length=1)]


class StepText(Frozen):
    """What a step may have beside its action."""

    arms: Annotated[_ArmList, BeforeValidator(_as_list, json_schema_input_type=_ArmList | str)] = Field(
        alias=IN, json_schema_extra={"uniqueItems": True}
    )
    """The arms that have this step, a name or a list of names; without it, all have it."""


class ArmText(Frozen):
    """What differs in one arm; everything else is the scenario's."""

    kernel: str | None = None
    """A kernel of the guest's definition, or a path (with a `/`) to a bzImage."""
    kernel_args: KernelArgs | None = None
    """Words for the kernel's command line, in place of the scenario's."""
    setup: dict[str, Any] = Field(default_factory=dict)
    """Keys of the scenario's `setup` that differ."""
    host_kernel: str | None = None
    """Kernel of a nested host, in place of the scenario's."""
    host_setup: dict[str, Any] = Field(default_factory=dict)
    """Keys of the scenario's `host_setup` that differ."""
    machine: dict[str, Any] = Field(default_factory=dict)
    """Keys of the scenario's `machine` that differ."""
    start: Start | None = None
    """In place of the scenario's."""


class Requires(Frozen):
    """What a host of a fleet must have beyond what the scenario's machines imply (docs/fleet.md)."""

    memory: Annotated[Size, Field(gt=0)] | None = None
    """Bytes for one trial, in place of what its machine takes if that is less."""
    cores: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    """Cores for one trial, in place of one for each vCPU."""
    disk: Annotated[Size, Field(gt=0)] | None = None
    """Free bytes where the host's cache is, for one trial."""
    kvm: bool = False
    """A KVM under which a kernel was seen to print."""
    second_level: Literal["EPT", "NPT"] | None = None
    """The kind of second-level paging of its KVM."""
    nested: bool = False
    """A KVM whose guests may have one."""
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")] | None = None
    """As `uname -m` has it."""
    kernel: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4}){0,2}$")] | None = None
    """The least version of its kernel, as `6.8`."""


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
    kernel_args: KernelArgs | None = None
    """Words that are added to the kernel's command line, in one line."""
    host: HostName = LOCAL
    """Where guests run: `local` is this machine, `nested` a KVM host that is itself a guest of this machine,
    `lab` the one that `orchestrator lab up` started; else `qemu+ssh://USER@HOST/system`."""
    host_machine: Machine = NESTED_MACHINE
    """Devices of a nested host."""
    host_kernel: str | None = None
    """Kernel of a nested host: one of guests/kvm-host.yaml, or a path (with a `/`) to a bzImage."""
    host_setup: HostSetup = HostSetup()
    """What is set on the host."""
    accel: Accel = "auto"
    """`kvm`, `tcg` (software emulation), or `auto`: kvm where there is one."""
    clock: Clock = "time"
    """`instructions`: the guest's clock counts instructions (QEMU's icount), so that a trial has no times; it
    takes `accel: tcg` and one vCPU."""
    start: Start = "warm"
    """`warm`: trials begin with the saved memory of a guest that has booted; `cold`: each boots its own."""
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
    boots: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None
    """Boots of each guest that warm trials start from, in turn; without it as many as `repeats`, at most 8.
    Trials of one boot say nothing of how boots differ."""
    times: Literal["measured", "ignored"] = "measured"
    """Whether times and rates matter. Where they are `ignored`, trials run side by side as far as memory and
    cores of this machine go, and metrics of time are missing."""
    warm_up: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    """Trials of each arm before those that count: they are kept, and in no table."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 1
    """Seed of the order of the trials and of what the workloads do."""
    requires: Requires | None = None
    """What a host must have where a fleet does the trials; a run on this machine does not ask for it."""
    expect: Annotated[list[Expectation], Field(max_length=1000)] = Field(default_factory=list)
    """What is to come out; `run` ends with exit code 1 when it does not."""
    steps: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    """What happens in a trial, in order: each step is one action with its parameters, in all arms or some."""


ArmTexts: TypeAlias = Annotated[dict[Name, ArmText | None], Field(min_length=1, max_length=100)]


class MatrixText(Frozen):
    """Arms that are every combination of what some axes offer."""

    axes: Annotated[dict[Name, ArmTexts], Field(min_length=1, max_length=8)]
    """For each axis its choices: a name for each, and what differs with it. `a` of the first axis and `b` of
    the second make the arm `a-b`."""
    exclude: list[str] = Field(default_factory=list)
    """Names of combinations to leave out. Others are added as `arms`."""


class ScenarioText(Body):
    """A scenario file."""

    matrix: MatrixText | None = None
    """What is compared, as combinations."""
    arms: ArmTexts
    """What is compared: a name for each arm, and what differs in it."""


class MatrixFile(BaseModel):
    """The matrix of a scenario file, whatever else it has."""

    matrix: MatrixText


class ArmsText(BaseModel):
    """The arms of a scenario file, whatever else it has."""

    arms: ArmTexts


class Arm(Frozen):
    """One combination of what is compared, complete.

    `kernel` is a name in the guest's definition or the absolute path of a bzImage.
    """

    name: Name
    kernel: str
    kernel_args: KernelArgs = ""
    setup: Setup
    machine: Machine
    host_kernel: str = NESTED_KERNEL
    host_setup: HostSetup = HostSetup()
    start: Start | None = None
    """None in plans of older versions: the plan's."""


@dataclass(frozen=True)
class Step:
    """An action, the name that it is registered under, and the arms that have it, in the file's order."""

    name: str
    action: Action
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """A scenario without faults. `views` has, for each arm, the file with that arm written into it.

    `absent` are kernels that are files and not there: no fault of the file, but it cannot be run.
    """

    file: YamlFile
    views: Mapping[str, YamlFile]
    body: Body
    arms: tuple[Arm, ...]
    steps: tuple[Step, ...]
    absent: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """Its short name."""
        return self.body.name

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self.file.name

    def only(self, names: Collection[str]) -> Scenario:
        """With no other arms than these, and what is expected of them. Raises BadInputError."""
        known = [arm.name for arm in self.arms]
        for name in names:
            if name not in known:
                raise BadInputError(f"{self.path} has no arm {name[:80]!r}; {suggest(name, known)}")
        steps = (replace(one, arms=tuple(arm for arm in one.arms if arm in names)) for one in self.steps)
        expect = [one for one in self.body.expect if {one.arm, one.versus} - {"", None} <= set(names)]
        return replace(
            self,
            body=self.body.model_copy(update={"expect": expect}),
            arms=tuple(arm for arm in self.arms if arm.name in names),
            steps=tuple(step for step in steps if step.arms),
        )

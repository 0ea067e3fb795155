"""What will be done, trial by trial: decided before anything runs, and readable without a hypervisor.

Trials come in blocks, one block for each repeat; every block has each arm once, in an order that
the seed decides. So a drift of the host over time meets all arms alike. Repeat r of a warm arm starts from
boot r of its guest: what a guest's trials have in common is then the guest's, not one boot's.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.errors import BadInputError
from orchestrator.host.kvm_host import NESTED_KERNEL, NESTED_MACHINE
from orchestrator.host.machine import Frozen, HostSetup, Machine
from orchestrator.host_kinds import LOCAL
from orchestrator.records.accel import ICOUNT
from orchestrator.records.plan import PlanRecord
from orchestrator.registry import Registry
from orchestrator.scenario.expect import Expectation
from orchestrator.scenario.model import (
    DEFAULT_MOST_BOOTS,
    Accel,
    Arm,
    Clock,
    Requires,
    Scenario,
    Setup,
    Start,
)
from orchestrator.suggestion import suggest

# Sizes and durations in a plan are numbers: bytes and seconds (units.py).
_RESOLVED = {"resolved": True}


class PlannedStep(Frozen):
    """An action by its registered name, and its parameters."""

    action: str
    params: dict[str, JsonValue]

    def load(self, actions: Registry[type[Action]] = ACTIONS) -> Action:
        """The action itself. Raises BadInputError when this version has no such action."""
        try:
            return actions[self.action].model_validate(self.params, context=_RESOLVED)
        except ValidationError as error:
            raise BadInputError(f"a planned step cannot be read: {self.action}", details=str(error)) from None


class PlannedArm(Arm):
    """An arm, and the columns by which a table tells it from the others.

    Columns are keys of the scenario (`kernel`, `thp`, `virtio_mem.block`); sizes are bytes. All arms of
    a plan have the same columns: the kernel, and whatever is not the same in all of them.
    """

    differs: dict[str, str]


class PlannedTrial(Frozen):
    """One execution of one arm.

    `repeat`, `order` and `boot` count from 1; `order` is the place in the whole run, `boot` says from which
    saved boot of its guest a warm trial starts. All arms of a repeat
    share one `seed`, so that their workloads do the same and can be compared pair by pair. A warm-up is
    kept, and counted nowhere.
    """

    id: str
    arm: str
    repeat: int
    order: int
    seed: int
    boot: int = 1
    warm_up: bool = False
    steps: tuple[PlannedStep, ...]


class TrialSpec(Frozen):
    """Everything that it takes to execute one trial, here or on another machine."""

    scenario: str
    id: str
    arm: str
    differs: dict[str, str]
    repeat: int
    order: int
    seed: int
    guest: str
    kernel: str
    kernel_args: str = ""
    accel: Accel | Literal["tcg-icount"]
    start: Start = "cold"
    boot: int = 1
    machine: Machine
    host: str = LOCAL
    host_machine: Machine = NESTED_MACHINE
    host_kernel: str = NESTED_KERNEL
    host_setup: HostSetup = HostSetup()
    setup: Setup
    steps: tuple[PlannedStep, ...]
    sample_every_seconds: float
    deadline_seconds: float

    def to_json(self) -> str:
        """As text that `from_json` reads back to the same trial."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialSpec:
        """Read back what `to_json` wrote. Raises BadInputError."""
        try:
            return cls.model_validate_json(text, context=_RESOLVED)
        except ValidationError as error:
            raise BadInputError("the trial's plan cannot be read", details=str(error)) from None


class Plan(Frozen):
    """A scenario with every choice made; `record` is what plan.json has of it."""

    format: Literal[1] = 1
    scenario: str
    description: str
    scenario_version: int
    scenario_path: str
    scenario_sha256: str
    guest: str
    host: str = LOCAL
    host_machine: Machine = NESTED_MACHINE
    accel: Accel
    clock: Clock = "time"
    start: Start = "cold"
    times: Literal["measured", "ignored"] = "measured"
    sample_every_seconds: float
    deadline_seconds: float
    seed: int
    repeats: int
    boots: int = 1
    arms: tuple[PlannedArm, ...]
    trials: tuple[PlannedTrial, ...]
    requires: Requires | None = None
    expect: tuple[Expectation, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file of the project that its trials read (`orchestrator.run.inputs`)."""

    @property
    def acceleration(self) -> Accel | Literal["tcg-icount"]:
        """What guests shall run under, as `host.accel.choose` takes it."""
        return ICOUNT if self.clock == "instructions" else self.accel

    def trial(self, trial_id: str) -> TrialSpec:
        """A trial with all that it needs. Raises BadInputError when there is no such trial."""
        for trial in self.trials:
            if trial.id == trial_id:
                break
        else:
            ids = [trial.id for trial in self.trials]
            raise BadInputError(f"no trial is called {trial_id!r}", hint=suggest(trial_id, ids))
        arm = next((arm for arm in self.arms if arm.name == trial.arm), None)
        if arm is None:
            raise BadInputError(
                f"trial {trial_id!r} is of arm {trial.arm!r}, which the plan does not have",
                hint="it was changed by hand; plan the scenario again",
            )
        return TrialSpec(
            scenario=self.scenario,
            id=trial.id,
            arm=arm.name,
            differs=arm.differs,
            repeat=trial.repeat,
            order=trial.order,
            seed=trial.seed,
            guest=self.guest,
            kernel=arm.kernel,
            kernel_args=arm.kernel_args,
            accel=self.acceleration,
            start=arm.start or self.start,
            boot=trial.boot,
            machine=arm.machine,
            host=self.host,
            host_machine=self.host_machine,
            host_kernel=arm.host_kernel,
            host_setup=arm.host_setup,
            setup=arm.setup,
            steps=trial.steps,
            sample_every_seconds=self.sample_every_seconds,
            deadline_seconds=self.deadline_seconds,
        )

    @property
    def sha256(self) -> str:
        """Names the plan: that of its text, as `to_json` has it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def record(self) -> PlanRecord:
        """As it stands in plan.json."""
        return PlanRecord.model_validate(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """As text that `from_json` reads back to the same plan."""
        return self.record().to_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read back what `to_json` wrote. Raises BadInputError."""
        try:
            return cls.model_validate_json(text, context=_RESOLVED)
        except ValidationError as error:
            hint = "it was written by another version or changed by hand; plan the scenario again"
            raise BadInputError("the plan cannot be read", details=str(error), hint=hint) from None


def make_plan(
    scenario: Scenario,
    *,
    seed: int | None = None,
    repeats: int | None = None,
    boots: int | None = None,
    start: Start | None = None,
    host: str | None = None,
) -> Plan:
    """Decide everything. What is given replaces the scenario's. Pure: same input, same plan."""
    body = scenario.body
    seed = body.seed if seed is None else seed
    repeats = body.repeats if repeats is None else repeats
    boots = min(boots or body.boots or DEFAULT_MOST_BOOTS, repeats)
    first_boot = {arm: 1 + boots * twin for arm, twin in _twins(scenario, start).items()}
    planned = [
        (step.arms, PlannedStep(action=step.name, params=step.action.model_dump(mode="json")))
        for step in scenario.steps
    ]
    steps = {arm.name: tuple(step for arms, step in planned if arm.name in arms) for arm in scenario.arms}
    # Warm-ups come before the first block, and are numbered up to 0.
    blocks = [
        (arm, repeat)
        for repeat in range(1 - body.warm_up, repeats + 1)
        for arm in shuffled([arm.name for arm in scenario.arms], seed, repeat)
    ]
    trials = tuple(
        PlannedTrial(
            id=f"{arm}-{repeat:02d}" if repeat > 0 else f"{arm}-warm-up-{1 - repeat:02d}",
            arm=arm,
            repeat=repeat,
            order=order,
            seed=_number(seed, repeat) % 2**32,  # workloads take 32 bits
            boot=first_boot[arm] + (repeat - 1) % boots,
            warm_up=repeat < 1,
            steps=steps[arm],
        )
        for order, (arm, repeat) in enumerate(blocks, start=1)
    )
    return Plan(
        scenario=body.name,
        description=body.description,
        scenario_version=body.version,
        scenario_path=scenario.path,
        scenario_sha256=hashlib.sha256(scenario.file.text.encode()).hexdigest(),
        guest=body.guest,
        host=host or body.host,
        host_machine=body.host_machine,
        accel=body.accel,
        clock=body.clock,
        start=start or body.start,
        times="ignored" if body.clock == "instructions" else body.times,
        sample_every_seconds=body.sample_every,
        deadline_seconds=body.deadline,
        seed=seed,
        repeats=repeats,
        boots=boots,
        arms=_with_columns(
            tuple(arm.model_copy(update={"start": start or arm.start}) for arm in scenario.arms)
        ),
        trials=trials,
        requires=body.requires,
        expect=tuple(one for text in body.expect for one in text.of_each(arm.name for arm in scenario.arms)),
    )


def shuffled(arms: list[str], seed: int, repeat: int) -> list[str]:
    """The arms in the order of one block: by hash, so it is the same in every version of Python."""
    return sorted(arms, key=lambda arm: (_number(seed, repeat, arm), arm))


def _number(*parts: object) -> int:
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _twins(scenario: Scenario, start: Start | None) -> dict[str, int]:
    """For each arm, how many before it are the same thing under another name.

    Twins start from boots of their own: else the difference between them would be that of two restores of the
    same boots, and pass for the noise of guests.
    """
    seen: dict[object, int] = {}
    twins = {}
    for arm in scenario.arms:
        steps = tuple(number for number, step in enumerate(scenario.steps) if arm.name in step.arms)
        same = (arm.model_dump_json(exclude={"name"}), steps, start)
        twins[arm.name] = seen.get(same, 0)
        seen[same] = twins[arm.name] + 1
    return twins


def _with_columns(arms: tuple[Arm, ...]) -> tuple[PlannedArm, ...]:
    rows = [_row(arm) for arm in arms]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    distinguishing = [
        "kernel",
        *(key for key in keys if key != "kernel" and len({row.get(key) for row in rows}) > 1),
    ]
    return tuple(
        PlannedArm(
            name=arm.name,
            kernel=arm.kernel,
            kernel_args=arm.kernel_args,
            setup=arm.setup,
            machine=arm.machine,
            host_kernel=arm.host_kernel,
            host_setup=arm.host_setup,
            start=arm.start,
            differs={key: row.get(key, "") for key in distinguishing},
        )
        for arm, row in zip(arms, rows, strict=True)
    )


def _row(arm: Arm) -> dict[str, str]:
    """An arm as flat columns, `kernel` first."""
    row = {"kernel": arm.kernel, "kernel_args": arm.kernel_args, "host_kernel": arm.host_kernel}
    for part in (arm.setup, arm.machine):
        row |= _flat(part.model_dump(mode="json"))
    return row | _flat(arm.host_setup.model_dump(mode="json"), "host_")


def _flat(value: dict[str, object], prefix: str = "") -> dict[str, str]:
    row: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            row |= _flat(inner, f"{prefix}{key}.")
        elif inner is not None:
            row[prefix + key] = str(inner).lower() if isinstance(inner, bool) else str(inner)
    return row

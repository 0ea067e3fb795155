"""Lines of events.jsonl: a class for each name that they can have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args

from pydantic import Field, JsonValue, TypeAdapter

from orchestrator.records.base import (
    ConsoleTail,
    Curve,
    Details,
    OptionalNumber,
    OutputText,
    Record,
    Text,
    Texts,
    UtsName,
    Values,
    Whole,
)
from orchestrator.records.step import HOTPLUG, Direction, Effect, StepResult, Target


class Event(Record):
    """One line. `t_ns` counts monotonic nanoseconds since the trial began."""

    t_ns: Whole
    event: str

    @property
    def name(self) -> str:
        """What happened, as the line calls it."""
        return self.event

    def fields(self) -> dict[str, object]:
        """What the line says; a field that was never given is not in it."""
        given = self.model_dump(exclude={"t_ns", "event"}, exclude_unset=True)
        return {"t_ns": self.t_ns, "event": self.event, **given}


class TrialBegin(Event):
    """A trial began, on the host of that name."""

    event: Literal["trial.begin"] = "trial.begin"
    arm: Text = ""
    accel: Text = ""
    host: UtsName = ""


class Phase(Event):
    """A part of the trial that is no step is over; it took so many `seconds`."""

    event: Literal["phase"] = "phase"
    phase: Text
    seconds: OptionalNumber = None


class GuestStart(Event):
    """The guest runs: booted (`cold`), or restored (`warm`) from the saved boot `state`."""

    event: Literal["guest.start"] = "guest.start"
    start: Text = ""
    state: Text = ""
    made: bool = False
    """Whether this trial had to make the state."""


class GuestKernel(Event):
    """What the guest's kernel says of itself, and the hash of the file that was booted."""

    event: Literal["guest.kernel"] = "guest.kernel"
    kernel_sha256: Text = ""
    kernel_release: UtsName = ""
    kernel_build: UtsName = ""


class StepBegin(Event):
    """A step began."""

    event: Literal["step.begin"] = "step.begin"
    step: Whole = 0
    action: Text = ""
    describe: Text = ""


class StepEnd(Event):
    """How a step ended (`orchestrator.records.step.StepResult`), and what such a step does to memory.

    `workload` is the one that the step was about, if any; `expects` the classes as which its memory is to be
    found.
    """

    event: Literal["step.end"] = "step.end"
    step: Whole = 0
    action: Text = ""
    describe: Text = ""
    outcome: Text = ""
    requested_ns: Whole | None = None
    acknowledged_ns: Whole | None = None
    settled_ns: Whole | None = None
    values: Values = Field(default_factory=dict)
    curve: Curve = ()
    message: Text = ""
    takes_memory: bool = False
    mechanism: Text = ""
    target: Target = Target.GUEST
    direction: Direction = Direction.NONE
    workload: Text = ""
    expects: Texts = ()

    @classmethod
    def of(
        cls, begin: StepBegin, t_ns: int, effect: Effect, result: StepResult, about: Mapping[str, Any]
    ) -> StepEnd:
        """The end at `t_ns` of a step that began so. `about` has the workload that it was about, if any."""
        return cls(
            t_ns=t_ns,
            step=begin.step,
            action=begin.action,
            describe=begin.describe,
            outcome=result.outcome,
            requested_ns=result.requested_ns,
            acknowledged_ns=result.acknowledged_ns,
            settled_ns=result.settled_ns,
            values=result.values,
            curve=tuple(result.curve),
            message=result.message,
            takes_memory=effect.direction is Direction.TAKE,
            mechanism=effect.mechanism,
            target=effect.target,
            direction=effect.direction,
            **about,
        )

    def value(self, key: str) -> float | None:
        """One of `values`; None where there is none, or it is no number."""
        return self.values.get(key)

    @property
    def takes(self) -> bool:
        """Whether such a step takes memory from its target."""
        return self.direction is Direction.TAKE

    @property
    def resizes_guest(self) -> bool:
        """Whether such a step changes, by hot-plug, which memory the guest has."""
        moves = self.direction is not Direction.NONE
        return moves and self.target is Target.GUEST and self.mechanism in HOTPLUG


class DimmAnswered(Event):
    """What a guest answered by ACPI's _OST. Without `status`, QEMU itself refused."""

    event: Literal["dimm.answer"] = "dimm.answer"
    step: Whole = 0
    slot: Whole | None = None
    source: Whole | None = None
    status: Whole | None = None
    message: Text = ""


class CommandOutput(Event):
    """What the command of an `exec` step printed: the end of it, and how many characters came before."""

    event: Literal["output"] = "output"
    step: Whole = 0
    text: OutputText = ""
    left_out_characters: Whole = 0


class SnapshotTaken(Event):
    """A snapshot was taken, and is in `file` of the trial's `snapshots/`."""

    event: Literal["snapshot"] = "snapshot"
    label: Text = ""
    of: Literal["guest", "host"] = "guest"
    file: Text = ""
    paused: bool = False
    frames_changed: Whole = -1


class WorkloadFinding(Event):
    """What a workload found that must not be."""

    event: Literal["finding"] = "finding"
    step: Whole = 0
    workload: Text = ""
    kind: Text = ""
    text: Text = ""
    address: Text = ""
    expected: Text = ""
    found: Text = ""


class KernelLogRead(Event):
    """What a kernel has complained of by the end of the trial; without `complaints`, `gap` says why."""

    event: Literal["kernel.log"] = "kernel.log"
    of: Literal["guest", "host"] = "guest"
    source: Text = ""
    complaints: Whole | None = None
    lines: Texts = ()
    stall_lines: Texts = ()
    gap: Text = ""


class OomKilled(Event):
    """A process that an OOM killer ended, as the log of its kernel has it (`orchestrator.guest.oom_log`).

    `workload` is the one that it belonged to, empty for others.
    """

    event: Literal["oom.kill"] = "oom.kill"
    of: Literal["guest", "host"] = "guest"
    workload: Text = ""
    pid: Whole = 0
    comm: Text = ""
    out_of: Text = ""
    uptime_seconds: OptionalNumber = None
    total_vm_bytes: OptionalNumber = None
    anon_rss_bytes: OptionalNumber = None
    file_rss_bytes: OptionalNumber = None
    shmem_rss_bytes: OptionalNumber = None
    page_table_bytes: OptionalNumber = None
    oom_score_adj: OptionalNumber = None


class Mark(Event):
    """A moment with a name, once every probe had read what was there."""

    event: Literal["mark"] = "mark"
    label: Text = ""


class TrialEnd(Event):
    """How the trial ended: `completed`, or what went wrong."""

    event: Literal["trial.end"] = "trial.end"
    outcome: Text = ""
    error: Text = ""
    details: Details = ""
    console_tail: ConsoleTail = ""
    hint: Text = ""


class Unknown(Event):
    """A line of a name that this version does not know: kept, and never read."""

    given: dict[str, JsonValue] = Field(default_factory=dict)

    def fields(self) -> dict[str, object]:
        return {"t_ns": self.t_ns, "event": self.event, **self.given}


KnownEvent: TypeAlias = Annotated[
    TrialBegin
    | Phase
    | GuestStart
    | GuestKernel
    | StepBegin
    | StepEnd
    | DimmAnswered
    | CommandOutput
    | SnapshotTaken
    | WorkloadFinding
    | KernelLogRead
    | OomKilled
    | Mark
    | TrialEnd,
    Field(discriminator="event"),
]
_READER: Final[TypeAdapter[KnownEvent]] = TypeAdapter(KnownEvent)
_UNION, _ = get_args(KnownEvent)
NAMES: Final[frozenset[str]] = frozenset(kind.model_fields["event"].default for kind in get_args(_UNION))

Kind = TypeVar("Kind", bound=Event)


def read_event(fields: Mapping[str, Any]) -> Event:
    """The event that a line of JSON is. Raises ValueError when it is none."""
    if fields.get("event") in NAMES:
        return _READER.validate_python(fields)
    given = {key: value for key, value in fields.items() if key not in {"t_ns", "event"}}
    return Unknown.model_validate({"t_ns": fields.get("t_ns"), "event": fields.get("event"), "given": given})


def of_kind(events: Iterable[Event], kind: type[Kind]) -> list[Kind]:
    """Those of one kind, in their order."""
    return [event for event in events if isinstance(event, kind)]

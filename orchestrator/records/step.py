"""What a step did, and what it does to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

Point: TypeAlias = tuple[float, int]
"""Seconds since the request, and the bytes that had moved by then; negative: the other way."""


class StepOutcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    PARTIAL = "partial"  # something came of it, and less than was asked
    REFUSED = "refused"  # it never moved
    TIMEOUT = "timeout"  # still moving when its time was over
    KILLED = "killed"  # the workload that it is about was killed
    FAILED = "failed"  # it could not be carried out: no action returns this


class Mechanism(StrEnum):
    """By what a step moves memory."""

    VIRTIO_MEM = "virtio-mem"
    PC_DIMM = "pc-dimm"
    MEMORY_BLOCK = "memory-block"  # offline and online, inside the guest
    BALLOON = "balloon"
    FREE_PAGE_REPORTING = "free-page-reporting"
    NONE = ""


HOTPLUG: Final = frozenset({Mechanism.VIRTIO_MEM, Mechanism.PC_DIMM, Mechanism.MEMORY_BLOCK})
"""These change which memory a guest has; the others take pages of what it has."""


class Target(StrEnum):
    """Whose memory it is."""

    GUEST = "guest"
    HOST = "host"  # where that is a guest of ours


class Direction(StrEnum):
    """Which way memory goes, as the target sees it."""

    TAKE = "take"
    GIVE = "give"
    NONE = "none"


@dataclass(frozen=True)
class Effect:
    """What a kind of step does to memory. It is known before the step runs, so also of one that fails."""

    mechanism: Mechanism = Mechanism.NONE
    target: Target = Target.GUEST
    direction: Direction = Direction.NONE


@dataclass(frozen=True)
class StepResult:
    """How a step went. Times are monotonic nanoseconds since the trial began, None where it came to none.

    `curve` is what moved, against time; `message` what the guest gave as its reason for stopping short.
    """

    outcome: StepOutcome
    requested_ns: int | None = None
    acknowledged_ns: int | None = None
    settled_ns: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[Point] = ()
    message: str = ""

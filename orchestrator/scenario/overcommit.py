"""The file that `orchestrator model overcommit` reads: a host, classes of guests, and what to try on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from orchestrator.errors import BadInputError
from orchestrator.host.machine import Frozen
from orchestrator.model.overcommit import GuestClass, HostMemory, LoadPhase, OvercommitSetting
from orchestrator.model.policies import OverTrace
from orchestrator.model.replay import EvictionAction
from orchestrator.units import ENTRIES_PER_TABLE, Duration, Size
from orchestrator.yamlfile import load_yaml_model

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MOST_GUESTS = 10_000
MOST_TICKS = 20_000
MOST_GUEST_TICKS = 5_000_000


class HostText(Frozen):
    """What the host has."""

    memory: Annotated[Size, Field(gt=0)]
    reserved: Size = 0
    """Of that, for the host itself."""
    swap: Size = 0
    """Room for tables that are swapped out."""
    other_node: Size = 0
    """Room on another node for tables that are migrated."""


class PhaseText(Frozen):
    """A guest's use of its memory at a moment; linear from one phase to the next."""

    after: Duration
    """Since its arrival."""
    used: Share
    """Share of its size that holds data."""


class GuestText(Frozen):
    """A class of guests."""

    size: Annotated[Size, Field(gt=0)]
    at_most: Annotated[int, Field(ge=1, le=MOST_GUESTS)]
    """How many may come."""
    phases: Annotated[list[PhaseText], Field(min_length=1, max_length=1000)]
    entries_per_table: Annotated[float, Field(ge=1, le=ENTRIES_PER_TABLE, allow_inf_nan=False)]
    """Used pages under each of its own last-level tables: 512 is dense, 1 to 10 what sparse heaps leave."""
    huge: Share = 0
    """Share of its data in pages of 2 MiB."""
    zero: Annotated[float, Field(ge=0, le=0.99, allow_inf_nan=False)] = 0
    """Share of its last-level tables that map the zero page only: memory that was read and never written."""
    tables_per_upper: Annotated[float, Field(ge=1, le=ENTRIES_PER_TABLE, allow_inf_nan=False)] = (
        ENTRIES_PER_TABLE
    )
    """Last-level tables below each PMD table: 512 where its mappings lie side by side."""
    skew: Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)] = 0.8
    """Exponent of the Zipf law by which its tables are touched; 0 touches all alike."""

    @field_validator("phases")
    @classmethod
    def _in_order(cls, phases: list[PhaseText]) -> list[PhaseText]:
        if any(second.after <= first.after for first, second in pairwise(phases)):
            raise ValueError("each phase must come after the one before")
        return phases


def _known_policy(name: str) -> str:
    try:
        OverTrace.named(name)
    except BadInputError as error:
        raise ValueError(f"{error.brief}; {error.hint}") from None
    return name


KnownPolicy = Annotated[str, AfterValidator(_known_policy)]


class OvercommitText(Frozen):
    """The whole file."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=1000)] = ""
    host: HostText
    guests: Annotated[dict[str, GuestText], Field(min_length=1, max_length=50)]
    arrive_every: Annotated[Duration, Field(gt=0)]
    """Time between two guests; their order is drawn by lot."""
    lasts: Annotated[Duration, Field(gt=0)]
    tick: Annotated[Duration, Field(gt=0)] = Field(default="15s", validate_default=True)
    policies: Annotated[list[KnownPolicy], Field(min_length=1)]
    actions: Annotated[list[EvictionAction], Field(min_length=1)]
    """What becomes of tables in use that a policy takes."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 8

    @field_validator("guests")
    @classmethod
    def _not_too_many(cls, guests: dict[str, GuestText]) -> dict[str, GuestText]:
        if sum(one.at_most for one in guests.values()) > MOST_GUESTS:
            raise ValueError(f"more than {MOST_GUESTS:,} guests in all; use fewer")
        return guests

    # Of a field, not of the whole: it is reported with what is wrong elsewhere.
    @field_validator("tick")
    @classmethod
    def _of_a_size_that_can_be_simulated(cls, tick: float, info: ValidationInfo) -> float:
        lasts, guests = info.data.get("lasts"), info.data.get("guests")
        if lasts is not None and lasts / tick > MOST_TICKS:
            raise ValueError(f"`lasts` is more than {MOST_TICKS:,} of `tick`; make `tick` longer")
        many = sum(one.at_most for one in guests.values()) if guests else 0
        if lasts is not None and many * lasts / tick > MOST_GUEST_TICKS:
            raise ValueError(
                f"guests times `lasts` / `tick` is more than {MOST_GUEST_TICKS:,}; make `tick` longer"
            )
        return tick

    @property
    def question(self) -> OvercommitSetting:
        """What the model is asked."""
        return OvercommitSetting(
            HostMemory(self.host.memory, self.host.reserved, self.host.swap, self.host.other_node),
            tuple(
                GuestClass(
                    name,
                    one.size,
                    one.at_most,
                    tuple(LoadPhase(phase.after, phase.used) for phase in one.phases),
                    one.entries_per_table,
                    one.huge,
                    one.skew,
                    one.zero,
                    one.tables_per_upper,
                )
                for name, one in self.guests.items()
            ),
            self.arrive_every,
            self.lasts,
            self.tick,
        )

    @property
    def choices(self) -> Iterator[tuple[str, EvictionAction]]:
        """Each policy with each action, and those that take no table in use once."""
        for name in self.policies:
            matter = self.actions if OverTrace.named(name).evicts_in_use else self.actions[:1]
            yield from ((name, action) for action in matter)


def load_overcommit(path: Path) -> OvercommitText:
    """Read the file. Raises FileProblemsError with every fault, by line and column."""
    return load_yaml_model(path, OvercommitText)

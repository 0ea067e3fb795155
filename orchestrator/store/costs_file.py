"""Measured costs on disk: one JSON file, which says under what conditions they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.cost import SHIPPED, Cost, CostRange, InstructionCount
from orchestrator.store.atomic import replace_text

VERSION: Final = 1
FORMAT: Final = "orchestrator.model.calibrate/1"  # as --json has it: what it prints is this file
_MAX_BYTES: Final = 1 << 20
_UNITS: Final = {cost.name: cost.unit for cost in SHIPPED}
_WHAT: Final = {cost.name: cost.what for cost in SHIPPED}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measured(_Strict):
    """One cost: 5 % of the samples were below `low`, half below `typical`, 95 % below `high`."""

    low: Annotated[float, Field(ge=0)]
    typical: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]
    unit: str
    samples: Annotated[int, Field(ge=1)]
    how: str


class Counted(_Strict):
    """Instructions, measured: the ends of the mean over boots. `of` says which phase less which; where two
    hardly differ, that may be below 0."""

    low: float
    typical: float
    high: float
    boots: Annotated[int, Field(ge=1)]
    of: str


class AssumedRate(_Strict):
    """How many instructions a second whoever made the file assumes. It was not measured."""

    instructions_per_cycle: Annotated[float, Field(gt=0)]
    hertz: Annotated[float, Field(gt=0)]

    @property
    def words(self) -> str:
        ghz = self.hertz / 1e9
        return f"{self.instructions_per_cycle:g} instructions per cycle at {ghz:g} GHz, both assumed"


# What may become seconds. Instructions of a fault are of another level, and without a guest's exit.
CONVERTED: Final = frozenset({"free_seconds"})


class CostsFile(_Strict):
    """What `orchestrator model calibrate` found. `missing` says of the others why not.

    `instructions` are counts beside the costs. With `assumed_rate`, those of CONVERTED become seconds.
    """

    format: Literal["orchestrator.model.calibrate/1"] = FORMAT
    version: Literal[1] = VERSION
    measured_at: str
    conditions: dict[str, str]
    costs: dict[str, Measured]
    missing: dict[str, str]
    instructions: dict[str, Counted] = {}
    assumed_rate: AssumedRate | None = None

    def as_instructions(self) -> dict[str, InstructionCount]:
        """The counts, by the cost that they are of. Raises BadInputError for one that there is not."""
        unknown = sorted(set(self.instructions) - set(_UNITS))
        if unknown:
            raise BadInputError(
                f"instructions of {unknown[0]!r}, which is no cost", hint=f"there are: {', '.join(_UNITS)}"
            )
        return {name: InstructionCount(**one.model_dump()) for name, one in self.instructions.items()}

    def _assumed(self) -> dict[str, Cost]:
        """Seconds that are computed of instructions, of what was not measured in seconds."""
        rate = self.assumed_rate
        if rate is None:
            return {}
        seconds = 1 / (rate.instructions_per_cycle * rate.hertz)
        found = {}
        for name, one in self.as_instructions().items():
            if name in CONVERTED and name not in self.costs:
                source = (
                    f"computed: {one.typical:,.0f} instructions, measured over {one.boots} boots ({one.of}), "
                    f"by {rate.words}"
                )
                # Nothing takes less than no time, whatever a difference of two means may be.
                ends = (max(0.0, end) for end in (one.low, one.typical, one.high))
                value = CostRange(*ends) * seconds
                found[name] = Cost(name, _WHAT[name], _UNITS[name], value, source)
        return found

    def as_costs(self) -> dict[str, Cost]:
        """The measured ones, and those that the assumed rate computes. Raises BadInputError for what makes no
        sense."""
        found = self._assumed()
        for name, one in self.costs.items():
            if name not in _UNITS or one.unit != _UNITS[name]:
                raise BadInputError(
                    f"no cost is called {name!r} with unit {one.unit!r}",
                    hint=f"there are: {', '.join(f'{cost} ({unit})' for cost, unit in _UNITS.items())}",
                )
            source = f"measured on {self.measured_at}, {one.samples:,} samples: {one.how}"
            value = CostRange(one.low, one.typical, one.high)
            found[name] = Cost(name, _WHAT[name], _UNITS[name], value, source)
        return found


def write_costs(path: Path, costs: CostsFile) -> None:
    """Put them into the file `path`, whole or not at all."""
    replace_text(path, costs.model_dump_json(indent=2) + "\n")


def is_costs(path: Path) -> bool:
    """Whether the file is one of costs, of whatever machine."""
    try:
        read_costs(path)
    except BadInputError:
        return False
    return True


def read_costs(path: Path) -> CostsFile:
    """What is in the file. Raises BadInputError, which says what is wrong with it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(text) > _MAX_BYTES:
        raise BadInputError(f"{path}: larger than any file of costs")
    try:
        return CostsFile.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "it"
        raise BadInputError(
            f"{path}: {where}: {fault['msg']}", hint=f"orchestrator model calibrate -o {path}   makes one"
        ) from error

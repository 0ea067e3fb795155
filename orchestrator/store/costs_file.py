"""Measured costs on disk: one JSON file, which says under what conditions they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import BadInputError
from orchestrator.model.cost import SHIPPED, Cost, CostRange
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


class CostsFile(_Strict):
    """What `orchestrator model calibrate` found. `missing` says of the others why not."""

    format: Literal["orchestrator.model.calibrate/1"] = FORMAT
    version: Literal[1] = VERSION
    measured_at: str
    conditions: dict[str, str]
    costs: dict[str, Measured]
    missing: dict[str, str]

    def as_costs(self) -> dict[str, Cost]:
        """The measured ones, by name. Raises BadInputError when one makes no sense."""
        found = {}
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

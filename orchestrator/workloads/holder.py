"""A program that holds an amount of one kind of memory: a new kind is a folder with a yaml and a C file."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, StrictInt, ValidationInfo, field_validator

from orchestrator.units import Size
from orchestrator.workloads.base import DRIVERS
from orchestrator.workloads.program import ProgramDriver

OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
OptionWord = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
# A text with a unit becomes bytes.
Option: TypeAlias = Annotated[Size | StrictInt | OptionWord, Field(union_mode="left_to_right")]


@DRIVERS.register("holder")
class Holder(ProgramDriver):
    """Calls its program with an amount and options; what these may be, the program says."""

    amount: Annotated[Size, Field(ge=1)]
    """Bytes to hold; of what, is said in docs/workloads.md."""
    options: Annotated[dict[OptionName, Option], Field(default_factory=dict)]
    """More of its parameters, as in `option=value`. The file names all that there are."""

    @field_validator("options")
    @classmethod
    def _options_that_there_are(
        cls, options: dict[str, int | str], info: ValidationInfo
    ) -> dict[str, int | str]:
        shipped = (info.context or {}).get("shipped")
        if isinstance(shipped, Holder):
            for name, value in options.items():
                if name not in shipped.options:
                    there = ", ".join(shipped.options) or "none"
                    raise ValueError(f"there is no option {name!r}; there are: {there}")
                if isinstance(value, str) is not isinstance(shipped.options[name], str):
                    raise ValueError(f"option {name!r} is of another kind; compare {shipped.options[name]!r}")
        return options

    def words(self, seed: int) -> list[str]:  # noqa: ARG002  # nothing in it is random
        return [str(self.amount), *(f"{name}={value}" for name, value in self.options.items())]

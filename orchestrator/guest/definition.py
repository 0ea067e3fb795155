"""What a guest image is made of: `guests/<name>.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from orchestrator.errors import BadInputError
from orchestrator.host.machine import Frozen
from orchestrator.older_names import OlderNames
from orchestrator.shipped import own_and_shipped, own_or_shipped
from orchestrator.suggestion import suggest
from orchestrator.units import Duration, Size
from orchestrator.yamlfile import load_yaml_model

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]


class Kernel(Frozen):
    """A kernel package and the Debian suite that it is taken from."""

    package: Name
    suite: Name


class GuestDefinition(Frozen, OlderNames):
    """A Debian image with one or more kernels."""

    older_names: ClassVar = {"boot_within": "boot_timeout"}

    version: Literal[1]
    name: Name
    description: str = ""
    suite: Name
    also_suites: tuple[Name, ...] = ()
    disk: Size
    packages: list[Name]
    kernels: Annotated[dict[str, Kernel], Field(min_length=1)]
    initrd_modules: list[str]
    command_line: str
    """Of the kernel; `root=/dev/vda` and `console=ttyS0` are what the image and the tool expect."""
    boot_timeout: Duration = 240.0
    """How long it may take from power-on to a shell."""

    @property
    def baked_in(self) -> dict[str, object]:
        """What an image is made of; the rest only matters when it is booted."""
        return self.model_dump(mode="json", exclude={"command_line", "boot_timeout", "description"})

    @property
    def default_kernel(self) -> str:
        """The kernel that is booted when none is chosen: the first one."""
        return next(iter(self.kernels))


def load_definition(path: Path) -> GuestDefinition:
    """Read a definition, the shipped one of that name where the file is not there.

    Raises FileProblemsError with every fault, BadInputError if there is no file.
    """
    path = own_or_shipped(path, "guests")
    if not path.is_file():
        folders = own_and_shipped(path.parent, "guests")
        there = sorted({other.stem for folder in folders for other in folder.glob("*.yaml")})
        raise BadInputError(
            f"no guest is called {path.stem!r}: {path} does not exist",
            hint=suggest(path.stem, there, "there are none"),
        )
    return load_yaml_model(path, GuestDefinition)

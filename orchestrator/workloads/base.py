"""The shape of a workload driver, and how a workload is found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import ConfigDict, ValidationError

from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError
from orchestrator.guest.shell import GuestShell
from orchestrator.host.machine import Frozen
from orchestrator.registry import Registry
from orchestrator.yamlfile import load_yaml_model, read_yaml


class WorkloadDriver(Frozen, ABC):
    """Starts, watches and stops a workload. Its fields are what `workload.yaml` sets."""

    driver: str
    program: str = ""
    """Source of the program to install in the guest, beside `workload.yaml`; none if the image has it."""
    expects: tuple[str, ...] = ()
    processes: ClassVar[tuple[str, ...]] = ()
    """Names (comm) of its processes in the guest, which the probes watch."""

    @abstractmethod
    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:
        """Bring it to its steady state and leave it there. Returns what it measured, by name with unit."""

    @abstractmethod
    def stop(self, shell: GuestShell, *, deadline: Deadline) -> None:
        """End it; its memory is the guest's again when this returns."""


DRIVERS: Registry[type[WorkloadDriver]] = Registry("workload driver", "orchestrator.workloads")


class _Head(Frozen):
    model_config = ConfigDict(extra="ignore")

    driver: str


def load_workload(folder: Path, settings: Mapping[str, object] | None = None) -> WorkloadDriver:
    """The driver of `workloads/<name>` with its parameters, and those in `settings` in their place.

    Raises BadInputError, FileProblemsError.
    """
    path = folder / "workload.yaml"
    if not path.is_file():
        there = sorted(other.parent.name for other in folder.parent.glob("*/workload.yaml"))
        raise BadInputError(
            f"no workload is called {folder.name!r}", hint=f"there are: {', '.join(there) or 'none'}"
        )
    driver: type[Any] = DRIVERS[load_yaml_model(path, _Head).driver]
    loaded: WorkloadDriver = load_yaml_model(path, driver)
    if not settings:
        return loaded
    try:
        written = cast("dict[str, object]", read_yaml(path).data)  # it was valid a moment ago
        changed: WorkloadDriver = driver.model_validate({**written, **settings})
    except ValidationError as error:
        raise BadInputError(
            f"workload {folder.name!r} cannot be set so: {_first_fault(error)}", hint=f"compare {path}"
        ) from None
    return changed


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"

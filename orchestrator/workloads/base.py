"""The shape of a workload driver, and how a workload is found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, ValidationError, field_validator

from orchestrator.deadline import Deadline
from orchestrator.errors import BadInputError
from orchestrator.guest.programs import Linkage
from orchestrator.guest.shell import GuestShell
from orchestrator.host.machine import Frozen
from orchestrator.model.frame_class import MOVABLE, UNMOVABLE
from orchestrator.registry import Registry
from orchestrator.shipped import own_and_shipped, own_or_shipped
from orchestrator.suggestion import suggest
from orchestrator.yamlfile import load_yaml_model, read_yaml

# What a workload can hold memory as; free frames and holes belong to none.
FRAME_CLASSES = tuple(frame_class.name.lower() for frame_class in (*UNMOVABLE, *MOVABLE))


@dataclass(frozen=True)
class WorkloadResult:
    """What a workload says when it is stopped: figures by name with unit, and findings.

    A finding is something that must not be, one mapping of texts each: `kind`, `text`, and what else there is
    (`address`, `expected`, `found`).
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Mapping[str, str], ...] = ()
    gone: bool = False
    """Its process was not there any more."""


class WorkloadDriver(Frozen, ABC):
    """Starts, watches and stops a workload. Its fields are what `workload.yaml` sets."""

    driver: str
    program: str = ""
    """Source of the program to install in the guest, beside `workload.yaml`; none if the image has it."""
    linkage: Linkage = "static"
    """How that program is linked."""
    oom_score_adj: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = 0
    """How much rather than others the OOM killer takes it (proc_pid_oom_score_adj(5)); -1000: never. What
    watches the guest has -1000, which it would inherit."""
    expects: tuple[str, ...] = ()
    """The classes of frames (`FRAME_CLASSES`) as which its memory is to be found in the guest, the finest
    first: where a stock kernel cannot tell that class, the next one is what it is counted as."""

    @field_validator("expects")
    @classmethod
    def _classes_that_there_are(cls, expects: tuple[str, ...]) -> tuple[str, ...]:
        for name in expects:
            if name not in FRAME_CLASSES:
                raise ValueError(
                    f"no class of frames is called {name!r}; there are: {', '.join(FRAME_CLASSES)}"
                )
        if len(set(expects)) < len(expects):
            raise ValueError("a class of frames is named twice")
        return expects

    @property
    @abstractmethod
    def processes(self) -> tuple[str, ...]:
        """Names (comm) of its processes in the guest, which the probes watch."""

    @abstractmethod
    def start(self, shell: GuestShell, *, seed: int, deadline: Deadline) -> dict[str, float]:
        """Bring it to its steady state and leave it there. Returns what it measured, by name with unit.
        Raises WorkloadKilledError."""

    @abstractmethod
    def stop(self, shell: GuestShell, *, deadline: Deadline) -> WorkloadResult:
        """End it; its memory is the guest's again when this returns."""


DRIVERS: Registry[type[WorkloadDriver]] = Registry("workload driver", "orchestrator.workloads")


class _Head(Frozen):
    model_config = ConfigDict(extra="ignore")

    driver: str


def load_workload(folder: Path, settings: Mapping[str, object] | None = None) -> WorkloadDriver:
    """The driver of `workloads/<name>` with its parameters, and those in `settings` in their place.

    The shipped one of that name where the folder is not there.
    A setting that is a mapping is written over the file's key by key. Drivers find the file's own
    parameters in the validation context, as `shipped`. Raises BadInputError, FileProblemsError.
    """
    folder = own_or_shipped(folder, "workloads")
    path = folder / "workload.yaml"
    if not path.is_file():
        folders = own_and_shipped(folder.parent, "workloads")
        there = sorted({other.parent.name for one in folders for other in one.glob("*/workload.yaml")})
        raise BadInputError(
            f"no workload is called {folder.name!r}", hint=suggest(folder.name, there, "there are none")
        )
    driver: type[Any] = DRIVERS[load_yaml_model(path, _Head).driver]
    loaded: WorkloadDriver = load_yaml_model(path, driver)
    if not settings:
        return loaded
    try:
        written = cast("dict[str, object]", read_yaml(path).data)  # it was valid a moment ago
        changed: WorkloadDriver = driver.model_validate(
            _merged(written, settings), context={"shipped": loaded}
        )
    except ValidationError as error:
        raise BadInputError(
            f"workload {folder.name!r} cannot be set so: {_faults(error)}", hint=f"compare {path}"
        ) from None
    return changed


def _merged(written: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    def one(name: str, value: object) -> object:
        there = written.get(name)
        return {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value

    return {**written, **{name: one(name, value) for name, value in settings.items()}}


def _faults(error: ValidationError) -> str:
    """Each of them, in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    )

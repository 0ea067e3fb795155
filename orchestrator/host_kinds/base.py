"""The seam to a host: everything that differs between kinds of host is asked of its class."""

from __future__ import annotations

import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from orchestrator.errors import BadInputError
from orchestrator.registry import Registry

if TYPE_CHECKING:
    from orchestrator.guest.keys import SshKeys
    from orchestrator.host.accel import Acceleration, KernelFile
    from orchestrator.host.libvirt_host import LibvirtHost
    from orchestrator.host.ssh import SshTarget
    from orchestrator.launch.environment import Starts
    from orchestrator.launch.paths import ProjectPaths

LOCAL = "local"  # where a scenario names no host


@dataclass(frozen=True)
class Site:
    """What a host is opened from. `accel` is as asked for; `kernel` is what KVM is tried with.

    `note` takes a line for people.
    """

    accel: str
    kernel: KernelFile
    runtime: Path
    places: ProjectPaths
    keys: SshKeys
    note: Callable[[str], None]


@dataclass(frozen=True)
class OpenHost:
    """A host that a run has open: `libvirt` is where this process starts guests, `acceleration` that of the
    guests of trials, `facts` what is known of their host by now, `starts` how trials come by their guests."""

    libvirt: LibvirtHost
    acceleration: Acceleration
    facts: Mapping[str, object]
    starts: Starts


class HostKind(ABC):
    """A host, as a scenario or `--connect` names it. Says what it is before anything runs, and opens it.

    Nothing heavy is imported until then: `validate` and `plan` ask these classes, too.
    """

    pattern: ClassVar[str]
    """Regular expression of what a scenario may write. `parse` may take more, from `--connect`."""
    form: ClassVar[str]
    """The same for people."""
    is_guest: ClassVar[bool] = False
    """Whether each trial has a host of its own, a guest of this machine: the plan has its kernel and devices,
    its memory is what a trial takes here, and it can be resized and read like the trial's guest."""
    shared: ClassVar[bool] = True
    """Whether trials that run at once are on it together: its counters have all of them, its settings are one
    trial's at a time."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The host of this kind that the text names, or None."""
        return cls(text) if re.fullmatch(cls.pattern, text) else None

    @property
    def elsewhere(self) -> bool:
        """Whether it is reached by ssh, so that it is not this machine that has to be fit for guests."""
        return False

    @property
    def machine_name(self) -> str:
        """What the machine is called that it is, or that it is a guest of."""
        return socket.gethostname()

    @property
    def takes_our_memory(self) -> bool:
        """Whether the plan's guests have to fit the memory of this machine."""
        return False

    def problems(self, accel: str) -> tuple[BadInputError, ...]:
        """What can be checked before anything runs; `accel` is as a scenario asks for it."""
        del accel
        return ()

    @abstractmethod
    def address(self, runtime: Path) -> str | SshTarget | None:
        """What `open_host` takes for the libvirt where this process starts guests. Raises BadInputError."""

    @abstractmethod
    def open(self, site: Site) -> AbstractContextManager[OpenHost]:
        """Open it for a run. Raises BadInputError and InfrastructureError."""

    def connect(self, runtime: Path, cache: Path) -> AbstractContextManager[LibvirtHost]:
        """The connection behind `open`, by itself. Raises as `open`."""
        from orchestrator.host.libvirt_host import open_host

        return open_host(self.address(runtime), runtime, cache)


HOST_KINDS: Registry[type[HostKind]] = Registry("host kind", "orchestrator.host_kinds")


def forms() -> str:
    """How people write a host."""
    *others, last = [kind.form for _, kind in HOST_KINDS]
    return f"{', '.join(others)}, or {last}"


def scenario_pattern() -> str:
    """Regular expression of what a scenario may write as its host."""
    return "|".join(kind.pattern for _, kind in HOST_KINDS)


def host_kind(text: str) -> HostKind:
    """The host that a text names. Raises BadInputError."""
    found = _find(text)
    if found is None:
        raise BadInputError(f"{text!r} is no host", hint=f"use {forms()}")
    return found


def is_guest(text: object) -> bool:
    """Whether the host of a plan is a guest itself; of a plan by whatever version, so that it can be read."""
    found = _find(text)
    return found is not None and found.is_guest


def is_shared(text: object) -> bool:
    """Whether trials of a plan share their host; as `is_guest`."""
    found = _find(text)
    return found is None or found.shared


def takes_our_memory(text: object) -> bool:
    """Whether guests of a plan have to fit the memory of this machine; as `is_guest`."""
    found = _find(text)
    return found is not None and found.takes_our_memory


def _find(text: object) -> HostKind | None:
    parsed = (kind.parse(text) for _, kind in HOST_KINDS if isinstance(text, str))
    return next((one for one in parsed if one is not None), None)

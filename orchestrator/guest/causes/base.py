"""The shape of a cause: what it looks at, and what it says of a guest that was lost.

A lost guest shows first as a connection that ended, whatever the cause. So causes are asked before that is
reported, in their order: the first that finds itself says what happened.
"""

from __future__ import annotations

import glob
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from orchestrator.errors import GuestError, GuestLostError, InfrastructureError
from orchestrator.guest.console import Console
from orchestrator.guest.shell import GuestShell
from orchestrator.procfs import MemoryCgroup, counters, memory_cgroup, process_state
from orchestrator.registry import Registry

if TYPE_CHECKING:
    from orchestrator.host.domain import Domain
    from orchestrator.host.libvirt_domain import LibvirtDomain

BOOT_ID = "/proc/sys/kernel/random/boot_id"
STOPPED = "T"
"""State of a process that SIGSTOP, or another signal like it, has stopped (proc_pid_stat(5))."""


@dataclass
class Seen:
    """What was seen of a guest while it ran, of which nothing is left to see once it is lost.

    `qemu_stopped_seconds`: for how long at least a signal had stopped its QEMU, all together; None where it
    was never seen so. `boot_id` is the guest's own, as its sampler sent it. `sampler_ended`: its stream
    ended, and the connection did not.
    """

    boot_id: str = ""
    sampler_ended: bool = False
    qemu_stopped_seconds: float | None = None
    panicked: bool = False
    cgroup: MemoryCgroup | None = None
    kills: int | None = None
    """OOM kills in the memory cgroup of QEMU when it was first looked at; None where they are not counted."""
    _stopped_since: float | None = None

    def look(self, domain: Domain) -> None:
        """Look at its QEMU, as the probes of the host do at each sample."""
        with suppress(InfrastructureError, OSError):
            shell, pid = domain.qemu.shell, domain.qemu.pid
            if self.cgroup and not shell.is_here:
                return  # each look costs the host that is measured
            stat, cgroup = f"/proc/{pid}/stat", f"/proc/{pid}/cgroup"
            texts = shell.texts(stat, *(() if self.cgroup else (cgroup,)))
            self._note(process_state(texts.get(stat, "")) == STOPPED, time.monotonic())
            if self.cgroup is None and cgroup in texts:
                self.cgroup = memory_cgroup(texts[cgroup])
                self.kills = self.kills_now(domain)

    def kills_now(self, domain: Domain) -> int | None:
        """OOM kills in QEMU's memory cgroup so far; None where they are not counted."""
        if self.cgroup is None or not self.cgroup.path:
            return None
        path = self.cgroup.events
        return counters(domain.qemu.shell.texts(glob.escape(path)).get(path, "")).get("oom_kill")

    def _note(self, stopped: bool, now: float) -> None:  # noqa: FBT001  # what was just seen
        if stopped:
            since = now if self._stopped_since is None else self._stopped_since
            self.qemu_stopped_seconds = (self.qemu_stopped_seconds or 0.0) + now - since
        self._stopped_since = now if stopped else None


@dataclass(frozen=True)
class Scene:
    """A guest of which something is amiss, or may be. `error` is what a caller met, if anything.

    `patient`: whatever comes late has come, and a cause may take its time: up to some 20 s.
    """

    domain: LibvirtDomain
    shell: GuestShell
    console: Console
    seen: Seen = field(default_factory=Seen)
    error: GuestError | None = None
    patient: bool = False

    def qemu_state(self) -> str:
        """The state of its QEMU, one letter as in proc_pid_stat(5); empty where it has ended."""
        return self.process_state(self.domain.qemu.pid)

    def process_state(self, pid: int) -> str:
        """As `qemu_state`, of a process of the host."""
        path = f"/proc/{pid}/stat"
        return process_state(self.domain.qemu.shell.texts(path).get(path, ""))

    def lost(self, brief: str, *, details: str = "", hint: str = "") -> GuestLostError:
        """An error with the console's tail, and what the caller had met."""
        met = f"{self.error.brief}: {self.error.details}".rstrip(": ") if self.error else ""
        return GuestLostError(
            brief,
            details="\n".join(part for part in (details, met and f"seen first: {met}") if part),
            hint=hint,
            console_tail=self.console.tail(),
        )


class Cause(ABC):
    """One way to lose a guest. Stateless."""

    order: ClassVar[int]
    """Causes are asked in this order: a cause stands before what it brings about."""

    patient: ClassVar[bool] = False
    """Whether it is asked only of a guest that is lost, once nothing more comes late: it may take up to 20 s.
    The others are asked once a second of a guest that may be well."""

    @abstractmethod
    def look(self, scene: Scene) -> GuestError | None:
        """What happened, or None where this is not it. May raise InfrastructureError or OSError: not it."""


CAUSES: Registry[type[Cause]] = Registry("cause", "orchestrator.guest.causes")


def find_cause(scene: Scene) -> GuestError | None:
    """The first cause that finds itself; None where none does."""
    for cause in _in_order():
        if cause.patient and not scene.patient:
            continue
        with suppress(InfrastructureError, OSError):
            if found := cause.look(scene):
                return found
    return None


def _in_order() -> Iterator[Cause]:
    return (cause() for cause in sorted((one for _, one in CAUSES), key=lambda one: one.order))

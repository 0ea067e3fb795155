"""How a trial comes by its guest: from a saved state (a warm start), or by booting one (a cold start).

Either way the guest that comes out has booted and been set up, and nothing is set yet that arms differ in.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from orchestrator.errors import InfrastructureError, host_failure
from orchestrator.guest.boot import Guest
from orchestrator.guest.build import GUEST_ADDRESS
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import Image
from orchestrator.guest.keys import SshKeys
from orchestrator.guest.states import GuestSpec, SavedState, hash_files, start_from_state
from orchestrator.host.cpu import cpu_model
from orchestrator.host.domain_xml import DomainFiles, domain_xml
from orchestrator.host.libvirt_host import LibvirtHost
from orchestrator.host.machine import HostSetup, Machine
from orchestrator.interrupts import deferred
from orchestrator.launch.guests import Guests, QemuGuests
from orchestrator.launch.host_settings import apply_host_settings
from orchestrator.launch.paths import PLAYBOOK, ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.records.events import GuestStart, Phase
from orchestrator.store import TrialWriter

# Boot goes on behind the first shell: what is still to come then is waited for, before it is saved.
QUIET_SECONDS = 120.0

Started = TypeVar("Started")


class LaunchSpec(Protocol):
    """What a trial's plan says of its guest, and of the host if that is a guest as well."""

    @property
    def id(self) -> str:
        """Unique in the run."""

    @property
    def steps(self) -> Sized:
        """What is done with the guest."""

    @property
    def start(self) -> str:
        """`warm` or `cold`."""

    @property
    def guest(self) -> str:
        """Its definition."""

    @property
    def kernel(self) -> str:
        """As `Image.boot_files` takes it."""

    @property
    def kernel_args(self) -> str:
        """Words for the kernel's command line."""

    @property
    def boot(self) -> int:
        """Which boot the trial starts from."""

    @property
    def machine(self) -> Machine:
        """Its devices."""

    @property
    def host_kernel(self) -> str:
        """Kernel of a host that is a guest."""

    @property
    def host_machine(self) -> Machine:
        """Devices of a host that is a guest."""

    @property
    def host_setup(self) -> HostSetup:
        """What is set on the host."""


class Starts(ABC):
    """How trials come by their guests on an open host. What is started goes on the stack of `begin`."""

    own_host: ClassVar[bool] = False
    """Whether a trial's host is there only in the trial: nothing can be read of it before."""

    @abstractmethod
    def guest(self, begin: GuestLaunch) -> Guest:
        """The trial's guest, which has booted and been set up. Raises GuestError and InfrastructureError."""

    @abstractmethod
    def spec(self, plan: LaunchSpec, environment: TrialEnvironment) -> GuestSpec:
        """What decides which saved state the trial starts from."""

    @abstractmethod
    def make(self, begin: GuestLaunch, state: SavedState) -> None:
        """Make that state."""


@dataclass(frozen=True)
class TrialEnvironment:
    """What trials of a run share. `programs` are installed in every guest of the run: name -> file.

    `host` is where this process starts guests, `accel` what guests of trials run under, `host_name` what the
    machine with them is called.
    """

    host: LibvirtHost
    image: Image
    keys: SshKeys
    places: ProjectPaths
    accel: str
    definition: GuestDefinition
    runtime: Path
    progress: Progress
    programs: Mapping[str, Path]
    starts: Starts
    learn: Callable[[Mapping[str, object]], None] = lambda _: None
    """Takes what is learned of the host once there is one: for meta.json."""
    guests: Guests = field(default_factory=QemuGuests)
    host_name: str = ""


@contextmanager
def phase(writer: TrialWriter, name: str, now_ns: Callable[[], int]) -> Iterator[None]:
    """Record as an event how long a part of the trial took that is no step of it, also if it fails."""
    began_ns = now_ns()
    try:
        yield
    finally:
        ended_ns = now_ns()
        writer.record(Phase(t_ns=ended_ns, phase=name, seconds=(ended_ns - began_ns) / 1e9))


@dataclass(frozen=True)
class GuestLaunch:
    """What it takes to begin a trial. What is started goes on `stack`."""

    plan: LaunchSpec
    environment: TrialEnvironment
    writer: TrialWriter
    scratch: Path
    now_ns: Callable[[], int]
    stack: ExitStack

    def cold(self) -> Guest:
        """A guest that is booted and set up now, on the host of the run."""
        name = f"{self.environment.runtime.name}-{self.plan.id}"[:40]
        guest = self.stack.enter_context(
            self.set_up(self.environment.host, name, self.scratch, self.writer.console_log)
        )
        self.writer.record(GuestStart(t_ns=self.now_ns(), start="cold", state=""))
        return guest

    def warm(self) -> Guest:
        """A guest that goes on from its saved state, which is made if it is not there."""
        spec = guest_spec(Bootable.of(self.plan), self.environment)
        return self.from_state(
            spec,
            make=lambda state: self.make(spec, state),
            restore=lambda state, stack: stack.enter_context(
                self.environment.guests.restored(
                    self.environment.host,
                    state,
                    self.environment.keys,
                    scratch=self.scratch,
                    console_log=self.writer.console_log,
                )
            ),
        )

    def from_state(
        self,
        spec: GuestSpec,
        *,
        make: Callable[[SavedState], None],
        restore: Callable[[SavedState, ExitStack], Started],
    ) -> Started:
        """What `restore` gives of a saved state. What it starts goes on the stack that it is given.

        A try that fails is ended before the next one: it has the names and the folder that this one needs.
        """
        made, boot = 0, ""

        def making(state: SavedState) -> None:
            nonlocal made
            made += 1
            make(state)

        def restoring(state: SavedState) -> Started:
            nonlocal boot
            boot = state.boot_name
            self.environment.progress.step("restore", 0, len(self.plan.steps))
            with phase(self.writer, "restore", self.now_ns), ExitStack() as stack:
                started = restore(state, stack)
                with deferred():  # it is on one of the two stacks at any moment
                    self.stack.enter_context(stack.pop_all())
            return started

        progress = self.environment.progress
        started = start_from_state(
            self.environment.places.cache, spec, make=making, restore=restoring, tell=progress.note
        )
        self.writer.record(GuestStart(t_ns=self.now_ns(), start="warm", state=boot, made=bool(made)))
        return started

    def make(self, spec: GuestSpec, state: SavedState) -> None:
        """Boot and set up a guest, and save it."""
        scratch = self.environment.runtime / "state"
        # The console is the trial's meanwhile: a guest that does not come up is seen there.
        console_log = self.writer.console_log
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            guest = stack.enter_context(
                self.set_up(self.environment.host, f"state-{spec.key}", scratch, console_log, disk=state.disk)
            )
            self.save(guest, state)
        shutil.copyfile(console_log, state.console_log)

    def save(self, guest: Guest, state: SavedState) -> None:
        """Save a guest of this machine once it is quiet; it ends with that."""
        self.environment.progress.step("save", 0, len(self.plan.steps))
        with phase(self.writer, "save", self.now_ns), guest.telling():
            quieten(guest)
            guest.shell.close()  # else the guest would wait for its end
            try:
                guest.domain.save(state.memory)
            except InfrastructureError as error:
                # libvirt's helper writes it, and names a file that is gone by now.
                if os.strerror(errno.ENOSPC) not in error.details:
                    raise
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(state.folder.parent))
                failure = host_failure(full)
                failure.details = error.details
                raise failure from error

    @contextmanager
    def set_up(
        self,
        host: LibvirtHost,
        name: str,
        scratch: Path,
        console_log: Path,
        *,
        disk: Path | None = None,
        keep: bool = False,
    ) -> Iterator[Guest]:
        """A guest that has booted and has what the playbook gives it."""
        plan, environment = self.plan, self.environment
        environment.progress.step("boot", 0, len(plan.steps))
        with ExitStack() as stack:
            with phase(self.writer, "boot", self.now_ns):
                guest = stack.enter_context(
                    environment.guests.booted(
                        host,
                        environment.image,
                        environment.image.boot_files(plan.kernel),
                        plan.machine,
                        environment.keys,
                        name=name,
                        accel=environment.accel,
                        definition=environment.definition,
                        scratch=scratch,
                        console_log=console_log,
                        disk=disk,
                        kernel_args=plan.kernel_args,
                        keep=keep,
                    )
                )
            environment.progress.step("set up", 0, len(plan.steps))
            with phase(self.writer, "set up", self.now_ns), guest.telling():
                install(guest, environment, scratch / "s")
            yield guest


def quieten(guest: Guest) -> None:
    """Wait until it has done what comes behind its first shell, and has written it down."""
    for argv in (["systemctl", "is-system-running", "--wait"], ["sync"]):
        guest.shell.run(argv, seconds=QUIET_SECONDS, check=False)


@dataclass(frozen=True)
class Bootable:
    """What decides how a guest of an image is booted."""

    guest: str
    kernel: str
    machine: Machine
    kernel_args: str = ""
    boot: int = 1

    @classmethod
    def of(cls, plan: LaunchSpec) -> Bootable:
        """The guest of a trial."""
        return cls(plan.guest, plan.kernel, plan.machine, plan.kernel_args, plan.boot)


def guest_spec(wanted: Bootable, environment: TrialEnvironment) -> GuestSpec:
    """What a guest is, before anything is set that arms may differ in."""
    boot = environment.image.boot_files(wanted.kernel)
    nowhere = DomainFiles(
        disk=Path("/disk"),
        console_log=Path("/console"),
        ssh_port=1,
        kernel=boot.kernel,
        initrd=boot.initrd,
        command_line=f"{environment.definition.command_line} {wanted.kernel_args}".rstrip(),
    )
    installed = {name: hash_files([file]) for name, file in environment.programs.items()}
    installed[PLAYBOOK] = hash_files([environment.places.playbook])
    return GuestSpec(
        guest=wanted.guest,
        image=environment.image.key,
        release=boot.release,
        kernel=hash_files([boot.kernel, *([boot.initrd] if boot.initrd else [])]),
        domain=domain_xml(
            "state", wanted.machine, nowhere, accel=environment.accel, guest_address=GUEST_ADDRESS
        ),
        installed=tuple(sorted(installed.items())),
        accel=environment.accel,
        cpu=cpu_model(),
        versions=tuple(sorted(environment.host.versions.items())),
        boot=wanted.boot,
    )


def install(guest: Guest, environment: TrialEnvironment, scratch: Path) -> None:
    """Run the playbook, which installs the programs. `scratch` is a folder to be made."""
    scratch.mkdir(parents=True)
    archive = scratch / "programs.tar"
    with tarfile.open(archive, "w") as tar:
        for name, program in environment.programs.items():
            tar.add(program, name, filter=_for_the_guest)
    playbook, variables = environment.places.playbook, {"programs": str(archive)}
    environment.guests.apply_playbook(playbook, variables, guest, scratch / "a", check=guest.must_live)


def _for_the_guest(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755
    return member


class SharedHost(Starts):
    """Guests of trials that are this host's own: on it come those of one trial after another, or at once."""

    def guest(self, begin: GuestLaunch) -> Guest:
        begin.stack.enter_context(
            apply_host_settings(
                begin.environment.host.shell, begin.plan.host_setup, begin.environment.runtime
            )
        )
        return begin.warm() if starts_warm(begin.plan, begin.environment) else begin.cold()

    def spec(self, plan: LaunchSpec, environment: TrialEnvironment) -> GuestSpec:
        return guest_spec(Bootable.of(plan), environment)

    def make(self, begin: GuestLaunch, state: SavedState) -> None:
        begin.make(self.spec(begin.plan, begin.environment), state)


def starts_warm(plan: LaunchSpec, environment: TrialEnvironment) -> bool:
    """Whether a trial starts from a saved state."""
    # The names of other people's domains on a libvirt that is shared would clash with that of a state.
    return plan.start == "warm" and environment.host.embedded

"""The seam between a run and the world: where its parts come from, and what runs its trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from orchestrator.errors import OrchestratorError
from orchestrator.guest.definition import GuestDefinition
from orchestrator.guest.image import Image, ensure_image
from orchestrator.guest.keys import SshKeys, ensure_keys
from orchestrator.guest.states import GuestSpec, find_state
from orchestrator.host.runtime import runtime_folder
from orchestrator.host_kinds import HostKind, host_kind
from orchestrator.launch.environment import TrialEnvironment
from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.plan import PlannedStep, TrialSpec
from orchestrator.run.budget import Budget
from orchestrator.run.parallel import ParallelRunner
from orchestrator.run.programs import guest_programs, planned_workloads
from orchestrator.run.trial import run_trial
from orchestrator.store import TrialWriter

Learn = Callable[[Mapping[str, object]], None]


class Machinery(ABC):
    """What a run asks of the world. Raises OrchestratorError."""

    one_run_a_process: ClassVar[bool] = False
    """Whether a second run takes another process."""

    @abstractmethod
    def programs(self, steps: Sequence[PlannedStep], places: ProjectPaths) -> dict[str, Path]:
        """What the steps need in their guests: name -> file. Raises BadInputError for a bad workload."""

    @abstractmethod
    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        """The folder of what there is only while the run goes on."""

    @abstractmethod
    def keys(self, cache: Path) -> SshKeys:
        """What guests are reached with."""

    @abstractmethod
    def image(
        self, definition: GuestDefinition, keys: SshKeys, cache: Path, note: Callable[[str], None]
    ) -> Image:
        """The guest's image, built if it is not there."""

    @abstractmethod
    def host(self, text: str) -> HostKind:
        """The host that a plan or `--connect` names."""

    @abstractmethod
    def has_state(self, cache: Path, spec: GuestSpec) -> bool:
        """Whether the saved state is there."""

    @abstractmethod
    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        """Run a trial in this process, as `orchestrator.run.trial.run_trial`."""

    @abstractmethod
    def workers(
        self,
        run_dir: Path,
        places: ProjectPaths,
        progress: Progress,
        connect: str | None,
        environment: TrialEnvironment,
    ) -> ParallelRunner:
        """What runs trials and boots side by side."""


class RealMachinery(Machinery):
    """Real guests on real hosts."""

    # An embedded driver keeps the root that it was first opened with, whatever is closed (qemuConnectOpen(),
    # src/qemu/qemu_driver.c), and each run's is in its own runtime folder.
    one_run_a_process: ClassVar[bool] = True

    def programs(self, steps: Sequence[PlannedStep], places: ProjectPaths) -> dict[str, Path]:
        return guest_programs(planned_workloads(steps, places), places)

    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        return runtime_folder(run_dir)

    def keys(self, cache: Path) -> SshKeys:
        return ensure_keys(cache)

    def image(
        self, definition: GuestDefinition, keys: SshKeys, cache: Path, note: Callable[[str], None]
    ) -> Image:
        return ensure_image(definition, keys, cache, progress=note)

    def host(self, text: str) -> HostKind:
        return host_kind(text)

    def has_state(self, cache: Path, spec: GuestSpec) -> bool:
        return find_state(cache, spec) is not None

    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        return run_trial(plan, environment, writer)

    def workers(
        self,
        run_dir: Path,
        places: ProjectPaths,
        progress: Progress,
        connect: str | None,
        environment: TrialEnvironment,
    ) -> ParallelRunner:
        return ParallelRunner(
            run_dir, places, progress, connect, Budget.of(environment.host.shell), learn=environment.learn
        )

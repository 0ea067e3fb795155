"""Runs whose trials are played: all is there of a run but guests and the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.guest.boot import Guest
from orchestrator.guest.states import GuestSpec, SavedState
from orchestrator.host.accel import Acceleration, KernelFile
from orchestrator.host_kinds import HostKind, Site
from orchestrator.host_kinds.base import OpenHost
from orchestrator.host_kinds.local import Local
from orchestrator.host_kinds.nested import Nested
from orchestrator.launch.environment import GuestLaunch, LaunchSpec, Starts, TrialEnvironment
from orchestrator.launch.paths import ProjectPaths
from orchestrator.plan import PlannedStep, TrialSpec
from orchestrator.records.events import TrialBegin, TrialEnd
from orchestrator.run.machinery import Machinery
from orchestrator.run.parallel import Ended, TrialTask
from orchestrator.store import TrialWriter

ROOT = Path(__file__).parents[2]
SPEC = GuestSpec("debian-13", "i", "6.12", "k", "<domain/>", (), "tcg", "a CPU", ())


class PlayedStarts(Starts):
    """Saved states by the boot that they are of; there are no guests."""

    def guest(self, begin: GuestLaunch) -> Guest:
        raise AssertionError("its trials are played")

    def spec(self, plan: LaunchSpec, environment: TrialEnvironment) -> GuestSpec:
        return GuestSpec(**{**vars(SPEC), "boot": plan.boot})

    def make(self, begin: GuestLaunch, state: SavedState) -> None:
        raise AssertionError("its trials are played")


class _Opens(HostKind):
    """Opens nothing, and says that `played` is open."""

    played: Played

    @contextmanager
    def open(self, site: Site) -> Iterator[OpenHost]:
        host: Any = SimpleNamespace(shell=SimpleNamespace(is_here=True), embedded=self.played.embedded)
        chosen = Acceleration(self.played.accel, "played", "none")
        yield OpenHost(host, chosen, self.played.host_facts, PlayedStarts())


class PlayedLocal(_Opens, Local):
    """This machine."""


class PlayedNested(_Opens, Nested):
    """A host for each trial, which says in the trial what it is."""


@dataclass
class Played(Machinery):
    """Plays trials: each ends as `ends` says, else completed."""

    ran: list[str] = field(default_factory=list)
    begun: list[Path] = field(default_factory=list)  # run folders
    ends: dict[str, OrchestratorError | BaseException] = field(default_factory=dict)
    accel: str = "tcg"
    embedded: bool = False
    host_facts: dict[str, object] = field(default_factory=lambda: {"hypervisor": {"qemu": "10.0.2"}})
    learned: dict[str, object] = field(default_factory=dict)
    states: set[int] = field(default_factory=set)  # boots of which the cache has one
    side_by_side: Callable[[Sequence[TrialTask]], Iterator[Ended]] | None = None
    kernel: Path | None = None
    hosts: Callable[[str], HostKind] | None = None

    def programs(self, steps: Sequence[PlannedStep], places: ProjectPaths) -> dict[str, Path]:
        return {}

    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        self.begun.append(run_dir)
        return nullcontext(Path("/nowhere"))

    def keys(self, cache: Path) -> Any:
        return None

    def image(self, *_: object) -> Any:
        return SimpleNamespace(
            kernel_to_try=lambda name: KernelFile(self.kernel or Path(name), name),
            key="k",
            releases={},
            packages={},
        )

    def host(self, text: str) -> HostKind:
        if self.hosts:
            return self.hosts(text)
        kind = (PlayedNested if text == Nested.form else PlayedLocal)(text)
        kind.played = self
        return kind

    def has_state(self, cache: Path, spec: GuestSpec) -> bool:
        return spec.boot in self.states

    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        self.ran.append(plan.id)
        environment.learn(self.learned)
        error = self.ends.get(plan.id)
        writer.record(TrialBegin(t_ns=0, host=environment.host_name))
        if error is not None and not isinstance(error, OrchestratorError):
            raise error
        outcome = getattr(error, "outcome", "failed") if error else "completed"
        writer.record(TrialEnd(t_ns=1, outcome=outcome))
        writer.close()
        return error

    def workers(self, *_: object) -> Any:
        assert self.side_by_side, "nothing was to run side by side"
        return SimpleNamespace(run=self.side_by_side, most_at_once=1)


PROGRESS: Any = SimpleNamespace(note=lambda *_: None, trial=lambda *_: None, trial_done=lambda *_: None)


def places(folder: Path) -> ProjectPaths:
    return ProjectPaths(ROOT / "guests", ROOT / "workloads", ROOT / "playbooks", folder / "cache")

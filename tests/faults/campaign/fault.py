"""A fault: what is broken, when, and what must come out. Each file beside this package has one or more."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from campaign.scene import Scene

FOLDER = Path(__file__).resolve().parents[1]
GROUPS = ("none", "guest", "host processes", "ourselves", "machine", "other hosts", "packages")

# The line that a run prints as it comes to each phase.
BOOT, SET_UP, RESTORE = "before the steps: boot", "before the steps: set up", "before the steps: restore"
STEP, SNAPSHOT, REPORT = "step 1 of", "step 2 of 2: snapshot", "writing the report"


def nothing(_: Scene) -> None:
    """What a fault does that has nothing to do then."""


@dataclass(frozen=True)
class Expected:
    """What must come out. `outcome` is that of each trial, in the order of the plan; None where there is no
    such run, or it cannot be said (a kill)."""

    code: int
    outcome: str | tuple[str, ...] | None
    says: tuple[str, ...] = ()
    """Words of what it prints."""
    seconds: float = 60.0
    """From the fault to the end of the command, at most."""
    samples: bool = True
    """Whether there are samples from before the fault: they must be kept."""
    cleaned: bool = False
    """Whether something may be left that `clean` removes: after a kill, which leaves no time for that."""
    status: str = ""
    """Of the run; empty: what its exit code says."""

    @property
    def outcomes(self) -> tuple[str, ...] | None:
        """One for each trial."""
        return (self.outcome,) if isinstance(self.outcome, str) else self.outcome


@dataclass(frozen=True)
class Fault:
    """One fault, played on a run of its own.

    A scenario of `steps` is run, and `strike` is called when the run prints `moment`; where there is no
    `strike`, the guest does it itself, in the step that begins then. With `play`, no scenario is run: it
    does all of it and gives exit code and text.
    """

    name: str
    group: str
    what: str
    when: str
    expected: Expected
    steps: tuple[str, ...] = ("wait: {time: 3min}",)
    start: str = "warm"
    scenario: str = ""
    """Lines that are added to the scenario."""
    moment: str = STEP
    strike: Callable[[Scene], None] = nothing
    prepare: Callable[[Scene], None] = nothing
    """Before the run; what it makes on the machine is there before and after."""
    put_right: Callable[[Scene], None] = nothing
    """After it: undoes what the fault has done to the machine."""
    check: Callable[[Scene], None] = nothing
    """Raises AssertionError for what is wrong beside what is expected."""
    play: Callable[[Scene], tuple[int, str]] | None = None
    inject: str = ""
    """Python that the orchestrator executes before its command line: what no file and no signal can break."""
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1
    own_cache: bool = False
    """Whether the cache gets so broken that it has to be another one's."""
    short: bool = False
    """Whether it is part of `tox`."""
    says_what_next: bool = True
    moment_seconds: float = 400.0
    """How long the run may take to come to `moment`."""

    def patiently(self, times: float) -> Fault:
        """The same with so many times as long for everything."""
        seconds, moment = self.expected.seconds * times, self.moment_seconds * times
        return replace(self, expected=replace(self.expected, seconds=seconds), moment_seconds=moment)


def load_faults(folder: Path = FOLDER) -> dict[str, Fault]:
    """The faults of all files, by name, in the order of their groups. Raises ValueError for a name that is
    there twice, or a group that is none."""
    found: dict[str, Fault] = {}
    for path in sorted(folder.glob("[a-z]*.py")):
        if path.stem.startswith(("test_", "conftest")):
            continue
        spec = importlib.util.spec_from_file_location(f"faults.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for fault in module.FAULTS:
            if fault.name in found or fault.group not in GROUPS:
                raise ValueError(f"{path}: {fault.name} is there twice, or has no group of {GROUPS}")
            found[fault.name] = fault
    return dict(sorted(found.items(), key=lambda item: GROUPS.index(item[1].group)))

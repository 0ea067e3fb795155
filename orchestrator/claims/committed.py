"""The committed results that claims are judged by: results/reference, read once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from orchestrator.claims.figure import NoFigureError, Sample
from orchestrator.errors import BadInputError
from orchestrator.host_kinds import is_guest
from orchestrator.shipped import shipped
from orchestrator.store import Run, layout, open_run
from orchestrator.suggestion import suggest
from orchestrator.summary import TrialSummary, load
from orchestrator.verdict import Comparison, RunFigures, compare_arms, figures_of

_PLACE: Final = Path("results") / "reference"


def reference_folder(asked: Path | None = None) -> Path:
    """The committed results: as asked for, or those that came with the program, or of the clone worked in.

    Raises BadInputError where there are none.
    """
    tried = [asked] if asked else [shipped(str(_PLACE)), Path.cwd() / _PLACE]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise BadInputError(
        f"no committed results: {' and '.join(map(str, dict.fromkeys(tried)))} "
        f"{'is' if len(set(tried)) == 1 else 'are'} not there",
        hint="call it in a clone of the project, or with --reference FOLDER",
    )


class CommittedRun:
    """A run folder of results/reference: values by boot, of the trials that count."""

    def __init__(self, folder: Path, shown: str) -> None:
        self.run: Run = open_run(folder)
        self._shown = shown
        self.summaries: list[TrialSummary] = load(self.run)
        self._compared: dict[str, Comparison] = {}

    def trials(self, arm: str) -> list[TrialSummary]:
        """Those of an arm that count. Raises NoFigureError where none does, BadInputError without the arm."""
        if arm not in self.run.arm_names:
            raise BadInputError(
                f"{self.run.directory} has no arm {arm!r}", hint=suggest(arm, list(self.run.arm_names))
            )
        found = [one for one in self.summaries if one.arm == arm and not one.left_out]
        if not found:
            raise NoFigureError(f"no trial of arm {arm} counts in {self._shown}")
        return found

    def by_boot(self, arm: str, read: Callable[[TrialSummary], float | None]) -> Sample:
        """The mean of each boot's trials that have a value. Raises NoFigureError where none has."""
        boots: dict[str, list[float]] = {}
        for trial in self.trials(arm):
            value = read(trial)
            if value is not None:
                boots.setdefault(trial.boot, []).append(value)
        if not boots:
            raise NoFigureError(f"no trial of arm {arm} in {self._shown} has this figure")
        return Sample({boot: sum(values) / len(values) for boot, values in boots.items()}, of_boots=True)

    def compared(self, base: str) -> Comparison:
        """All arms against one, as `orchestrator compare` has it."""
        if base not in self._compared:
            self._compared[base] = compare_arms(self.figures, base=base)
        return self._compared[base]

    @cached_property
    def figures(self) -> RunFigures:
        """As a comparison takes them."""
        return figures_of(self.run, self.summaries)

    def conditions(self, arms: tuple[str, ...]) -> str:
        """What these arms ran on."""
        trials = [trial for arm in arms for trial in self.trials(arm)]
        kernels = " and ".join(sorted({trial.kernel_release for trial in trials}))
        meta = self.run.meta
        if is_guest(self.run.plan.host):
            host = f"KVM with {meta.second_level} on a nested host with Linux {meta.host.get('kernel')}"
            return f"guest Linux {kernels} under {host}, itself under software emulation"
        accels = " and ".join(sorted({str(trial.metrics.get("accel", "")).upper() for trial in trials}))
        return f"guest Linux {kernels} under {accels}"


class Committed:
    """results/reference, or a folder like it. Reads what is asked for, once.

    `shown` is what the folder is called where something is not in it.
    """

    def __init__(self, folder: Path, shown: str = _PLACE.as_posix()) -> None:
        self.folder = folder
        self.shown = shown
        self.kind = "committed" if shown == _PLACE.as_posix() else "fresh"
        self._runs: dict[str, CommittedRun] = {}
        self._documents: dict[str, dict[str, Any]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a result of that name, a folder or a document."""
        return (self.folder / name).is_dir() or (self.folder / f"{name}.json").is_file()

    @property
    def run_names(self) -> list[str]:
        """The run folders that there are."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{layout.META}"))

    def run(self, name: str) -> CommittedRun:
        """A run folder. Raises NoFigureError where it is not committed, BadInputError where it is none."""
        if name not in self._runs:
            self._must_have(name)
            self._runs[name] = CommittedRun(self.folder / name, f"{self.shown}/{name}")
        return self._runs[name]

    def document(self, name: str) -> dict[str, Any]:
        """What a model said, in NAME.json. Raises as `run` does."""
        if name not in self._documents:
            self._must_have(name)
            path = self.folder / f"{name}.json"
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise BadInputError(f"{path}: not JSON: {error}") from None
            if not isinstance(found, dict):
                raise BadInputError(f"{path}: not a JSON object")
            self._documents[name] = found
        return self._documents[name]

    def model_conditions(self, name: str) -> str:
        """What a document of a model was computed by."""
        found = self.document(name)
        seeds = found.get("asked", {}).get("seeds")
        return f"model at commit {str(found['commit'])[:12]}" + (f", {seeds} seeds" if seeds else "")

    def _must_have(self, name: str) -> None:
        if not self.has(name):
            raise NoFigureError(f"no {self.kind} result in {self.shown}/{name}")

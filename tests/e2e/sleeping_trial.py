"""Workers and trials without guests: `serve` is `orchestrator worker` whose trials are this file's `trial`.

    python sleeping_trial.py serve ADDRESS --fleet FILE [...]     as `orchestrator worker`
    python sleeping_trial.py trial PLAN TRIAL --into DIR [...]    as `orchestrator trial`

What a trial does is in the environment: SLEEP_SECONDS, and SLEEP_COMMIT, which `serve` says is its commit.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from played import Played  # found by the line above

from orchestrator.cli import main  # as above
from orchestrator.errors import OrchestratorError  # as above
from orchestrator.host.runtime import runtime_folder  # as above
from orchestrator.launch.environment import TrialEnvironment  # as above
from orchestrator.plan import TrialSpec  # as above
from orchestrator.store import TrialWriter  # as above


class Sleeping(Played):
    """A run's parts, with trials that sleep and fill a snapshot that one can tell from others."""

    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        return runtime_folder(run_dir)

    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        (writer.snapshots / "filled.bin").write_bytes(os.urandom(1 << 20))
        time.sleep(float(os.environ.get("SLEEP_SECONDS", "0")))
        return super().run_trial(plan, environment, writer)


def run() -> None:
    """As its first word says."""
    verb, *words = sys.argv[1:]
    if verb == "trial":
        import orchestrator.run.machinery

        orchestrator.run.machinery.RealMachinery = Sleeping  # type: ignore[misc, assignment]
        main(["trial", *words])
    import orchestrator.fleet.card
    import orchestrator.fleet.unit

    orchestrator.fleet.unit.UNIT_COMMAND = (sys.executable, str(Path(__file__).resolve()), "trial")  # type: ignore[misc, assignment]
    commit = os.environ.get("SLEEP_COMMIT")
    if commit:
        known = orchestrator.fleet.card.this_program()
        changed = known.model_copy(update={"commit": commit})
        orchestrator.fleet.card.this_program = lambda: changed  # type: ignore[assignment]
    main(["worker", *words])


if __name__ == "__main__":
    run()

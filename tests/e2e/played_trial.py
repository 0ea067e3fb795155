"""The orchestrator, whose trials have no guest: each takes as long as its `wait` steps say, and completes.

It plays them as the unit tests do, whose folder has to be on PYTHONPATH.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

from played import Played

from orchestrator.cli import main
from orchestrator.errors import OrchestratorError
from orchestrator.host.runtime import runtime_folder
from orchestrator.launch.environment import TrialEnvironment
from orchestrator.plan import TrialSpec
from orchestrator.run import machinery
from orchestrator.store import TrialWriter


class Waits(Played):
    """Plays a trial in as much time as it is meant to take."""

    def runtime(self, run_dir: Path) -> AbstractContextManager[Path]:
        return runtime_folder(run_dir)

    def run_trial(
        self, plan: TrialSpec, environment: TrialEnvironment, writer: TrialWriter
    ) -> OrchestratorError | None:
        for step in plan.steps:
            time.sleep(float(str(step.params["time"])))
        return super().run_trial(plan, environment, writer)


if __name__ == "__main__":
    with patch.object(machinery, "RealMachinery", Waits):
        main()

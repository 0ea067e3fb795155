"""Executes a plan: boots guests, runs steps, samples, and writes the run folder as it goes."""

from orchestrator.launch.paths import ProjectPaths
from orchestrator.launch.progress import Progress
from orchestrator.run.execute import AGAIN, RunResult, execute_plan, missing_trials, new_run_id, resume_run

__all__ = [
    "AGAIN",
    "Progress",
    "ProjectPaths",
    "RunResult",
    "execute_plan",
    "missing_trials",
    "new_run_id",
    "resume_run",
]

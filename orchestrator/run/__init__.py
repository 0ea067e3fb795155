"""Executes a plan: boots guests, runs steps, samples, and writes the run folder as it goes."""

from orchestrator.run.execute import RunResult, execute_plan, new_run_id, resume_run
from orchestrator.run.places import Places
from orchestrator.run.progress import Progress

__all__ = ["Places", "Progress", "RunResult", "execute_plan", "new_run_id", "resume_run"]

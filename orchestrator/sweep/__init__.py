"""Many questions to the model at once: what they are, and on what they are computed."""

from orchestrator.sweep.engine import Engine, InProcess, Processes
from orchestrator.sweep.tasks import Row, SweepTask, tasks_of

__all__ = ["Engine", "InProcess", "Processes", "Row", "SweepTask", "tasks_of"]

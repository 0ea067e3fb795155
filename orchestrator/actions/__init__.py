"""What a step of a scenario can do. One file per action; each registers itself in `ACTIONS`."""

from orchestrator.actions.base import ACTIONS, Action, FieldProblem

__all__ = ["ACTIONS", "Action", "FieldProblem"]

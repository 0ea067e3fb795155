"""What could be done about page tables, one policy to a file. `POLICIES` finds them all by name."""

from orchestrator.model.policies.base import (
    POLICIES,
    QUESTIONS,
    Choice,
    Frees,
    Functions,
    OverSnapshot,
    OverTrace,
    OverTree,
    Policy,
    PolicyEffect,
    StateView,
    TreeEffect,
)

__all__ = [
    "POLICIES",
    "QUESTIONS",
    "Choice",
    "Frees",
    "Functions",
    "OverSnapshot",
    "OverTrace",
    "OverTree",
    "Policy",
    "PolicyEffect",
    "StateView",
    "TreeEffect",
]

"""What could be done about page tables, one policy to a file. `POLICIES` finds them all by name."""

from orchestrator.model.policies.base import POLICIES, Policy, StateView, Verdict

__all__ = ["POLICIES", "Policy", "StateView", "Verdict"]

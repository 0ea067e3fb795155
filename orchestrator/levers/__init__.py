"""What frees tables that VMs hold, on the host. One file per lever; each registers itself in `LEVERS`."""

from orchestrator.levers.base import LEVERS, Lever, LeverTarget, Prediction, Pulled, Scope

__all__ = ["LEVERS", "Lever", "LeverTarget", "Prediction", "Pulled", "Scope"]

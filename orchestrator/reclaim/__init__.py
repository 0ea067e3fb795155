"""Levers on VMs of a live host: once (`vm`), or by a policy, again and again (`loop`)."""

from orchestrator.reclaim.vm import LiveVm, MomentHeld, Pull

__all__ = ["LiveVm", "MomentHeld", "Pull"]

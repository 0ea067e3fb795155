"""What is read while a trial runs. One file per probe; each registers itself in `PROBES`."""

from orchestrator.probes.base import PROBES, HostView, Probe

__all__ = ["PROBES", "HostView", "Probe"]

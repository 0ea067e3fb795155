"""What is read while a trial runs. One file per probe, or per what a guest and its host have
alike; each registers itself in `PROBES`."""

from orchestrator.probes.base import PROBES, DeclaredSeries, HostView, Probe, declared_series, moment_series

__all__ = ["PROBES", "DeclaredSeries", "HostView", "Probe", "declared_series", "moment_series"]

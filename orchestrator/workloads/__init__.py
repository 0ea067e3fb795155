"""Drivers of what runs inside guests. One file per driver; its parameters are in `workloads/<name>/`."""

from orchestrator.workloads.base import DRIVERS, WorkloadDriver, WorkloadResult, load_workload

__all__ = ["DRIVERS", "WorkloadDriver", "WorkloadResult", "load_workload"]

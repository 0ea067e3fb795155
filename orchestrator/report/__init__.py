"""The report of a run, and its figures for other tools; all from the run folder and nothing else."""

from orchestrator.report.junit import write_junit
from orchestrator.report.page import build_report
from orchestrator.report.prometheus import write_prometheus

__all__ = ["build_report", "write_junit", "write_prometheus"]

"""Headline metrics of trials, from their saved files and nothing else (docs/run-folder.md defines each).

A metric that cannot be had is missing, and `TrialSummary.gaps` says why: no cell is ever invented.
"""

from orchestrator.headline import CATALOGUE, METRIC, METRICS
from orchestrator.metric import Metric
from orchestrator.records.summary import PolicyResult, TrialSummary
from orchestrator.summary.files import add_summary, load, refresh, saved, write_summaries
from orchestrator.summary.metrics import summarise_run, summarise_trial
from orchestrator.summary.resolution import resolution_of
from orchestrator.summary.spent import TimeSpent, note_time, time_spent
from orchestrator.summary.where import of_known_host

__all__ = [
    "CATALOGUE",
    "METRIC",
    "METRICS",
    "Metric",
    "PolicyResult",
    "TimeSpent",
    "TrialSummary",
    "add_summary",
    "load",
    "note_time",
    "of_known_host",
    "refresh",
    "resolution_of",
    "saved",
    "summarise_run",
    "summarise_trial",
    "time_spent",
    "write_summaries",
]

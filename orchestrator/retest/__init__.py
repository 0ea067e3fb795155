"""Claims tested again on this machine: what is run, in which order, and what differs.

`orchestrator claims --run`. All that it keeps is one folder, which is read as results/reference is.
"""

from orchestrator.retest.changes import Change, ClaimChange, PartChange, changes_of
from orchestrator.retest.jobs import FOLDER, Job, RunJob, jobs_of
from orchestrator.retest.loop import JobState, Progressed, Workplace, state_of, waits_for, work

__all__ = [
    "FOLDER",
    "Change",
    "ClaimChange",
    "Job",
    "JobState",
    "PartChange",
    "Progressed",
    "RunJob",
    "Workplace",
    "changes_of",
    "jobs_of",
    "state_of",
    "waits_for",
    "work",
]

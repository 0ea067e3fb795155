"""A run whose trials are tasks of a Slurm array: each is `orchestrator trial`, on whatever node is free."""

from orchestrator.slurm.array import Following, resume_by_slurm, run_by_slurm
from orchestrator.slurm.queue import Commands
from orchestrator.slurm.request import Site

__all__ = ["Commands", "Following", "Site", "resume_by_slurm", "run_by_slurm"]

"""Can this machine run guests, and how? One function for each question, one table of them."""

from orchestrator.doctor.check import Check, Level
from orchestrator.doctor.debian import install_missing, missing_packages
from orchestrator.doctor.examine import ACCELERATION, SECOND_LEVEL, examine, examine_host

__all__ = [
    "ACCELERATION",
    "SECOND_LEVEL",
    "Check",
    "Level",
    "examine",
    "examine_host",
    "install_missing",
    "missing_packages",
]

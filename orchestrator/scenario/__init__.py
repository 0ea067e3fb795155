"""What a user writes: a scenario file, checked as a whole before anything runs."""

from orchestrator.scenario.checks import guest_overhead_bytes, kernel_file_fault, kernel_warnings
from orchestrator.scenario.load import KernelsOf, load_scenario
from orchestrator.scenario.model import Arm, Scenario, Setup, Step

__all__ = [
    "Arm",
    "KernelsOf",
    "Scenario",
    "Setup",
    "Step",
    "guest_overhead_bytes",
    "kernel_file_fault",
    "kernel_warnings",
    "load_scenario",
]

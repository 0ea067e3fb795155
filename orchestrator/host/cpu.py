"""What processor this machine has."""

from __future__ import annotations

import platform
from pathlib import Path

from orchestrator.procfs import of_first_processor


def cpu_model() -> str:
    """Name of the first CPU, as /proc/cpuinfo has it; else the architecture."""
    return of_first_processor(Path("/proc/cpuinfo").read_text(), "model name") or platform.machine()

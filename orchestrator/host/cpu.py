"""The host's processor."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_model() -> str:
    """Name of the first CPU, as /proc/cpuinfo has it; else the architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

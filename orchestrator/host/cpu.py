"""What processor this machine has."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from orchestrator.procfs import of_first_processor

MICROCODE: Final = "microcode"  # a line of /proc/cpuinfo
_CPUINFO: Final = Path("/proc/cpuinfo")


def cpu_model() -> str:
    """Name of the first CPU, as /proc/cpuinfo has it; else the architecture."""
    return of_first_processor(_CPUINFO.read_text(), "model name") or platform.machine()


def cpu_microcode() -> str:
    """Revision of the first CPU's microcode, as /proc/cpuinfo of x86 has it; else empty."""
    return of_first_processor(_CPUINFO.read_text(), MICROCODE)

"""Where a run took place: what meta.json says of host, versions and origin."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import psutil

from orchestrator.commit import program_commit
from orchestrator.guest.image import Image
from orchestrator.host.accel import Acceleration
from orchestrator.host.cpu import cpu_microcode, cpu_model

_PACKAGES = (
    "libvirt-python",
    "ansible-core",
    "ansible-runner",
    "fabric",
    "paramiko",
    "numpy",
    "pandas",
    "pyarrow",
)
# Guest packages that decide what is measured; all versions are in the image's own image.json.
_GUEST_PACKAGES = ("redis-server", "libjemalloc2", "libc6", "systemd")


def provenance(command_line: list[str]) -> dict[str, object]:
    """What is known before anything is started."""
    return {
        "command_line": command_line,
        "git_commit": program_commit(),
        "host": {
            "kernel": platform.release(),
            "cpu": cpu_model(),
            "microcode": cpu_microcode(),
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "versions": {
            "orchestrator": metadata.version("orchestrator"),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def guest_facts(acceleration: Acceleration, image: Image) -> dict[str, object]:
    """What is known once the acceleration is chosen and the image built."""
    return {
        "accel": acceleration.name,
        "accel_reason": acceleration.reason,
        "accel_probed_at": acceleration.probed_at,
        "second_level": acceleration.second_level,
        "image": {
            "key": image.key,
            "kernels": image.releases,
            "packages": {name: image.packages[name] for name in _GUEST_PACKAGES if name in image.packages},
        },
    }


def command_line() -> list[str]:
    """How this process was called, without the path to the program."""
    name = Path(sys.argv[0]).name
    return ["orchestrator" if name == "__main__.py" else name, *sys.argv[1:]]

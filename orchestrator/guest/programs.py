"""The small C programs that run inside guests: linked statically, so that any guest takes them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.guest.cache import locked

_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-static"]


def build_program(source: Path, cache: Path) -> Path:
    """Compile `source` unless that very text was compiled before. Returns the program's path."""
    if not source.is_file():
        raise InfrastructureError(f"there is no program source at {source}")
    key = hashlib.sha256(" ".join(_FLAGS).encode() + source.read_bytes()).hexdigest()[:16]
    folder = cache / "programs"
    program = folder / f"{source.stem}-{key}"
    with locked(folder):
        if not program.exists():
            made = program.with_suffix(".new")
            done = subprocess.run(
                ["gcc", *_FLAGS, "-o", str(made), str(source)], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise InfrastructureError(f"{source} does not compile", details=done.stderr)
            made.replace(program)
    return program

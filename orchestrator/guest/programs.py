"""The small C programs that run inside guests."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Literal

from orchestrator.errors import InfrastructureError
from orchestrator.guest.cache import locked
from orchestrator.shipped import shipped

Linkage = Literal["static", "dynamic"]
"""A static program runs in any guest. A dynamic one needs a libc there no older than this machine's, and
is what LD_PRELOAD works on."""

_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]


def build_program(source: Path, cache: Path, linkage: Linkage = "static") -> Path:
    """Compile `source` unless that very text was compiled before. Returns the program's path.

    The text is that with all headers in it, so that another header makes another program.
    Raises InfrastructureError.
    """
    if not source.is_file():
        raise InfrastructureError(f"there is no program source at {source}")
    flags = [*_FLAGS, *(["-static"] if linkage == "static" else [])]
    text = _gcc(source, [*_FLAGS, *_headers(), "-E", "-P", str(source)])
    key = hashlib.sha256(" ".join(flags).encode() + text).hexdigest()[:16]
    folder = cache / "programs"
    program = folder / f"{source.stem}-{key}"
    with locked(folder):
        if not program.exists():
            made = program.with_suffix(".new")
            _gcc(source, [*flags, *_headers(), "-o", str(made), str(source)])
            made.replace(program)
    return program


def _headers() -> tuple[str, str]:
    """Where "../common/holder.h" is found for a source of the user's, whose folders have no such header."""
    return ("-iquote", str(shipped("workloads", "common")))


def _gcc(source: Path, words: list[str]) -> bytes:
    done = subprocess.run(["gcc", *words], capture_output=True, check=False)
    if done.returncode != 0:
        raise InfrastructureError(f"{source} does not compile", details=done.stderr.decode(errors="replace"))
    return done.stdout

"""Which commit this program is: git's in a checkout, the baked-in one in what was built from one.

Standard library only: hatch_build.py runs this file before anything is installed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

BAKED: Final = "COMMIT"
"""In the package's folder, of a wheel or sdist only: a line, as `checkout_commit` has it."""

_PACKAGE: Final = Path(__file__).resolve().parent
_GIT_SECONDS: Final = 10


def program_commit() -> str:
    """The commit of this program, with `-dirty` if it was changed; empty where neither is there."""
    try:
        return (_PACKAGE / BAKED).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return checkout_commit(_PACKAGE.parent)


def checkout_commit(root: Path) -> str:
    """The commit of the checkout whose top is `root`, with `-dirty` if it was changed; else empty.

    A folder somewhere in another checkout, such as a virtual environment in somebody's project, is none.
    """
    if not (root / ".git").exists():  # a folder; in a worktree a file
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

"""What may stand in a run folder: folders and plain files of its own.

A run folder may come from elsewhere. By a link that leads out of it, `show` would print, and `report` put
into a page, a file of the reader that was not asked for; and `resume` would write through one. A FIFO never
ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from orchestrator.errors import BadInputError

_KINDS: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def must_have_its_own_files(folder: Path, root: Path) -> None:
    """Raise BadInputError where something in `folder` leads out of `root`, or is neither file nor folder.

    `folder` itself is one that its caller has named or looked at. What is below its folders is not looked at.
    """
    inside = os.path.realpath(root)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_symlink():
            must_stay_inside(Path(entry.path), Path(inside))
        if not entry.is_dir() and not entry.is_file():
            _must_be_a_file(Path(entry.path))


def must_stay_inside(path: Path, root: Path) -> None:
    """Raise BadInputError where links of `path` lead out of `root`."""
    target, inside = os.path.realpath(path), os.path.realpath(root)
    if target != inside and not target.startswith(f"{inside}{os.sep}"):
        raise BadInputError(
            f"{path} is a link that leads out of {root}: it is not followed",
            hint="remove it, or put the file itself in its place if it is yours",
        )


def _must_be_a_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing: a file that is missing
        return
    kind = next((name for test, name in _KINDS if test(mode)), "")
    if kind:
        raise BadInputError(f"{path} is {kind}, and no file of a run", hint="remove it")

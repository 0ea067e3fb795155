"""Whether a folder is one in which no other user can put or replace anything.

Keys, images, compiled code and sockets are read from folders whose names others may know, and could have made
before us where they may write, as in /tmp.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import InfrastructureError


def must_be_trusted(folder: Path) -> None:
    """Raise InfrastructureError unless only this user and root can change what is at this path.

    Each folder on the way has to be theirs, and what others may write to sticky, as /tmp is: there no user
    renames or removes what is another's. What is not there yet is not looked at. A group may write: it is the
    user's own on Debian.
    """
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow the links that are looked at
    here = {absolute, absolute.resolve()}
    for path in sorted({one for name in here for one in (name, *name.parents)}):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if status.st_uid not in {0, os.geteuid()}:
            raise InfrastructureError(
                f"{path} belongs to user {status.st_uid}, who could change what is in {folder}",
                hint=f"name another folder, or: chown -R {os.geteuid()} {path}",
            )
        others_write = status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode)
        if others_write and (path in here or not status.st_mode & stat.S_ISVTX):
            raise InfrastructureError(
                f"everybody may write to {path}, and so change what is in {folder}",
                hint=f"name another folder, or: chmod o-w {path}",
            )

"""A second machine that is this one."""

from __future__ import annotations

from orchestrator.host_kinds.base import HOST_KINDS
from orchestrator.host_kinds.local import Local


@HOST_KINDS.register("added")
class Box(Local):
    """This machine under another name, said to be a guest."""

    pattern = form = "added"
    is_guest = True

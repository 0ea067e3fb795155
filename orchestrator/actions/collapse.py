"""`collapse`: nearly full ranges of the guest's memory become huge pages of its host."""

from __future__ import annotations

from orchestrator.actions.base import ACTIONS
from orchestrator.actions.lever import LeverStep
from orchestrator.levers.collapse import Collapse


@ACTIONS.register("collapse")
class CollapseRanges(LeverStep, Collapse):
    """Make huge pages of the host of ranges of 2 MiB of the guest's memory that are nearly full.

    Contents stay, and KVM needs no last-level table for them. A page that a balloon took may be there again.
    """

    def describe(self) -> str:
        return f"collapse ranges with at least {self.min_present} of 512 pages"

"""`flush`: KVM drops all second-level tables of all VMs of the host."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.actions.base import ACTIONS
from orchestrator.actions.lever import LeverStep
from orchestrator.levers.flush import Flush


@ACTIONS.register("flush")
class FlushTables(LeverStep, Flush):
    """Change nx_huge_pages of the host's KVM and put it back: it frees all second-level tables of all VMs.

    Refused where the setting is `never`, mitigates iTLB multihit, or a guest is migrated or backed up.
    """

    of_whole_host: ClassVar = True

    def describe(self) -> str:
        return "flush second-level tables"

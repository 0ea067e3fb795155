"""First huge pages, then all tables go: what the lever `collapse-and-flush` does."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.model.policies.collapse import Collapse
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool


class CollapseAndFlush(Collapse, name="collapse-and-flush"):
    """As `collapse`, and frees all tables then: faults map by huge pages what is nearly full."""

    when_touched: ClassVar = False

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """All tables, of every level, when ranges that are nearly full have become huge pages."""
        return tree.linked

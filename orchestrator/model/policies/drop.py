"""Zap whatever maps a guest's memory: KVM makes those tables again that are needed."""

from __future__ import annotations

from orchestrator.model.policies.base import OverTree
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool


class Drop(OverTree, name="drop"):
    """Frees all last-level tables: faults rebuild those that are needed."""

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """All last-level tables: faults rebuild those that are needed."""
        return tree.last_level

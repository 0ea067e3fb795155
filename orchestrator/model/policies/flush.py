"""Zap all of a guest's tables, of every level: what the lever `flush` has KVM do."""

from __future__ import annotations

from orchestrator.model.policies.base import OverTree
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool


class Flush(OverTree, name="flush"):
    """Frees all tables, of every level: faults rebuild those that are needed.

    kvm_mmu_zap_all_fast() gives up the root with all below it (arch/x86/kvm/mmu/mmu.c). A vCPU makes a new
    root when it runs again, which SecPageTables does not count.
    """

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """All tables, of every level: faults rebuild those that are needed."""
        return tree.linked

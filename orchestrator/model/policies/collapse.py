"""Map nearly full ranges by huge pages: what the lever `collapse` has the host's kernel do."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from orchestrator.model.nearly_full import MAX_GROWTH, MIN_PRESENT
from orchestrator.model.policies.base import OverTree
from orchestrator.model.second_level import fullest
from orchestrator.model.second_level_tree import SecondLevelTree
from orchestrator.model.snapshot import Bool


class Collapse(OverTree, name="collapse"):
    """Makes huge pages of ranges that are nearly full: each takes what it lacks, and frees its table.

    MADV_COLLAPSE fills a range, in the place of the zero page as well. Which pages of it are there is told by
    KVM's entries: QEMU may have more, so that a range lacks at most what is counted. All guests of the host
    together may take MAX_GROWTH. KVM never maps the first 2 MiB so: several memory slots share them.
    """

    when_touched: ClassVar = True

    def zaps(self, tree: SecondLevelTree) -> Bool:
        """Last-level tables of ranges that are nearly full and become huge pages, once each is touched."""
        return self.collapses(tree)

    def collapses(self, tree: SecondLevelTree) -> Bool:
        candidates = np.flatnonzero(tree.last_level & (tree.number > 0))
        own = tree.mapped[candidates].astype(np.int64) - tree.zero_page[candidates]
        huge = np.zeros(len(tree.pfn), dtype=np.bool_)
        huge[candidates[fullest(own, MIN_PRESENT, MAX_GROWTH)]] = True
        return huge

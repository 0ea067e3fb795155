"""What is in the second-level tables of a host, and what each policy would free of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.model.policies import OverTree
from orchestrator.model.second_level_tree import SecondLevelTree

_COUNTED = ("tables", "last_level", "unlinked")


@dataclass(frozen=True)
class SecondLevelCounts:
    """Numbers of tables: in use, those of the last level, and blank or zapped ones that nothing points at.

    `freed`: how many each policy would free, by its name. Modelled, nothing was done.
    """

    tables: int
    last_level: int
    unlinked: int
    freed: Mapping[str, int]

    @classmethod
    def of(cls, tree: SecondLevelTree) -> SecondLevelCounts:
        """Count tables, and ask every policy that answers over a tree."""
        return cls(
            tables=int(tree.linked.sum()),
            last_level=int(tree.last_level.sum()),
            unlinked=int((~tree.linked).sum()),
            freed={policy.name: int(policy.zaps(tree).sum()) for policy in OverTree.every()},
        )

    def to_json(self) -> str:
        """As a note of a snapshot: one object, what policies would free beside what was counted."""
        return json.dumps({**{name: getattr(self, name) for name in _COUNTED}, **self.freed})

    @classmethod
    def from_json(cls, text: str) -> SecondLevelCounts | None:
        """Read back; None for what is none."""
        try:
            found = {str(name): int(value) for name, value in json.loads(text).items()}
            tables, last_level, unlinked = (found.pop(name) for name in _COUNTED)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(tables, last_level, unlinked, freed=found)

"""What is in the second-level tables of a host, and what each policy would free of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator.jsontext import parse_json
from orchestrator.model.policies import OverTree, TreeEffect
from orchestrator.model.second_level_tree import SecondLevelTree

_COUNTED = ("tables", "last_level", "unlinked")


@dataclass(frozen=True)
class TreeEffectCounts:
    """What a policy would free, as numbers of tables; see TreeEffect. None is what an older snapshot does not
    say."""

    tables_freed: int
    tables_rebuilt_at_most: int | None = None
    huge_pages: int | None = None
    bytes_taken_at_most: int | None = None

    @classmethod
    def of(cls, effect: TreeEffect) -> Self:
        """Count them."""
        freed, rebuilt, collapsed = (
            int(mask.sum()) for mask in (effect.freed, effect.rebuilt, effect.collapsed)
        )
        return cls(freed, rebuilt, collapsed, effect.bytes_taken)


@dataclass(frozen=True)
class SecondLevelCounts:
    """Numbers of tables: in use, those of the last level, and blank or zapped ones that nothing points at.

    `effects`: what each policy would do, by its name. Modelled, nothing was done.
    """

    tables: int
    last_level: int
    unlinked: int
    effects: Mapping[str, TreeEffectCounts]

    @classmethod
    def of(cls, tree: SecondLevelTree) -> SecondLevelCounts:
        """Count tables, and ask every policy that answers over a tree."""
        return cls(
            tables=int(tree.linked.sum()),
            last_level=int(tree.last_level.sum()),
            unlinked=int((~tree.linked).sum()),
            effects={policy.name: TreeEffectCounts.of(policy.effect(tree)) for policy in OverTree.every()},
        )

    @property
    def freed(self) -> Mapping[str, int]:
        """How many tables each policy would free."""
        return {name: effect.tables_freed for name, effect in self.effects.items()}

    def to_json(self) -> str:
        """As a note of a snapshot: one object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SecondLevelCounts | None:
        """Read back; None for what is none."""
        try:
            found = dict(parse_json(text))
            tables, last_level, unlinked = (int(found.pop(name)) for name in _COUNTED)
            # An older note has, beside what was counted, how many tables each policy would free.
            if "effects" in found:
                effects = {str(name): _read(one) for name, one in found["effects"].items()}
            else:
                effects = {str(name): TreeEffectCounts(int(freed)) for name, freed in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None
        return cls(tables, last_level, unlinked, effects)


def _read(effect: Mapping[str, Any]) -> TreeEffectCounts:
    return TreeEffectCounts(**{name: int(value) for name, value in effect.items() if value is not None})

"""Questions to models that claims are judged by, asked again: documents as results/reference has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.model.cost import CostTable
from orchestrator.model.guest_tables import GuestTables, build_tables
from orchestrator.model.overcommit import answers
from orchestrator.model.patterns import pattern_named
from orchestrator.model.policies import OverSnapshot
from orchestrator.model.tables import LAST_LEVEL
from orchestrator.scenario.overcommit import load_overcommit
from orchestrator.units import PAGE_BYTES

_FREED = "freed_bytes."


def overcommit_document(path: Path, asked: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Some answers of a file, with all its seeds and the shipped costs. Raises FileProblemsError.

    `asked` are (policy, action), the action empty for the only one.
    """
    wanted = set(asked)
    question = load_overcommit(path)
    choices = [one for one in question.choices if (one[0], str(one[1])) in wanted or (one[0], "") in wanted]
    found = answers(question.question, choices, CostTable.shipped(), seeds=question.seeds)
    return {"asked": question.model_dump(mode="json"), "answers": [one.figures() for one in found]}


def guests_document(figures: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Bytes of page tables of synthetic guests, for `figures`: (guest, key)."""
    asked: dict[str, set[str]] = {}
    for guest, key in figures:
        asked.setdefault(guest, set()).add(key)
    return {name: guest_sizes(guest_named(name), _policies(keys)) for name, keys in asked.items()}


def _policies(keys: Iterable[str]) -> list[str]:
    return sorted(key.removeprefix(_FREED) for key in keys if key.startswith(_FREED))


def guest_named(name: str) -> GuestTables:
    """A synthetic guest with the parameters of its pattern as shipped."""
    return build_tables(pattern_named(name, {}).guest_mappings(np.random.default_rng(0)))


def guest_sizes(guest: GuestTables, policies: Iterable[str]) -> dict[str, Any]:
    """Bytes of a guest's tables, and what policies free of them."""
    in_use = guest.tables.present[guest.tables.level == LAST_LEVEL] > 0
    return {
        "table_bytes": guest.table_bytes,
        "last_level_bytes": int(guest.level_counts()[LAST_LEVEL]) * PAGE_BYTES,
        "in_use_bytes": int(in_use.sum()) * PAGE_BYTES,
        "freed_bytes": {
            policy: int(OverSnapshot.named(policy).apply(guest).bytes_freed) for policy in policies
        },
    }

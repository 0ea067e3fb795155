"""A working set that moves: what was hot is unmapped, or no longer touched."""

from __future__ import annotations

import numpy as np

from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.patterns.base import (
    PATTERNS,
    Count,
    MappedSize,
    Pattern,
    Share,
    joined,
    plain_layout,
    tables_of,
    zipf_touches,
)
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import ENTRIES_PER_TABLE


@PATTERNS.register("phases")
class Phases(Pattern):
    """Memory in equal parts that take turns to be used; a share of each is unmapped when its turn ends."""

    size: MappedSize = "8GiB"  # type: ignore[assignment]  # validated as a default
    """All parts together."""
    phases: Count = 4
    """How many parts, and turns."""
    unmapped: Share = 0.5
    """Share of a part's tables that are unmapped when its turn ends."""
    touches: Count = 100_000
    """Touches in a turn, Zipf with exponent 1."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        tables = tables_of(self.size)
        turn = np.arange(tables) * self.phases // tables
        left = (turn == self.phases - 1) | (rng.random(tables) >= self.unmapped)
        plain = plain_layout(
            np.arange(tables, dtype=np.int64), np.where(left, ENTRIES_PER_TABLE, 0).astype(np.int16)
        )
        age = (self.phases - 1 - turn).astype(np.int32)
        return GuestMappings(plain.number, plain.pages, plain.zero_page, plain.page_cache, age)

    def trace(self, rng: np.random.Generator) -> Trace:
        tables = tables_of(self.size)
        parts = []
        for ids in np.array_split(np.arange(tables), self.phases):
            if not len(ids):
                continue
            parts += [
                (ids, TouchKind.TOUCH),
                (ids[zipf_touches(rng, len(ids), self.touches)], TouchKind.TOUCH),
            ]
            parts.append((ids[rng.random(len(ids)) < self.unmapped], TouchKind.UNMAPPED))
        return joined("phases", tables, parts, "each part touched once in order, then by Zipf, in its turn")

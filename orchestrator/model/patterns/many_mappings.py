"""Many small mappings far apart: each costs a table for a handful of pages."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.patterns.base import PATTERNS, Count, Pattern, Share, joined, plain_layout
from orchestrator.model.trace import TouchKind, Trace
from orchestrator.units import ENTRIES_PER_TABLE


@PATTERNS.register("many_mappings")
class ManyMappings(Pattern):
    """Mappings of a few pages each, some of them of files, at addresses far apart."""

    mappings: Count = 65_530  # vm.max_map_count
    """How many."""
    pages: Annotated[int, Field(ge=1, le=ENTRIES_PER_TABLE)] = 4
    """Pages in each."""
    spacing: Annotated[int, Field(ge=1, le=4096)] = 3
    """Distance in units of 2 MiB: one mapping in every so many."""
    files: Share = 0.5
    """Share of the mappings whose pages are page cache."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        plain = plain_layout(
            np.arange(self.mappings, dtype=np.int64) * self.spacing,
            np.full(self.mappings, self.pages, dtype=np.int16),
        )
        cached = np.where(rng.random(self.mappings) < self.files, self.pages, 0).astype(np.int16)
        return GuestMappings(plain.number, plain.pages, plain.zero_page, cached, plain.age)

    def trace(self, rng: np.random.Generator) -> Trace:
        tables = self.mappings * self.spacing
        where = np.arange(self.mappings) * self.spacing
        parts = [(where, TouchKind.TOUCH), (rng.permutation(where), TouchKind.TOUCH)]
        return joined("many_mappings", tables, parts, "each touched twice, the second time in any order")

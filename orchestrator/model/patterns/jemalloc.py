"""An allocator that gives pages back one extent at a time and keeps the address space."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

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


@PATTERNS.register("jemalloc")
class Jemalloc(Pattern):
    """Address space that was all used once; what is left is scattered in runs of pages."""

    span: MappedSize = "64GiB"  # type: ignore[assignment]  # validated as a default
    """Address space that the allocator has mapped and used."""
    pages: Annotated[float, Field(ge=0, le=512, allow_inf_nan=False)] = 2.0
    """Mean of the pages left in each 2 MiB; their number is Poisson."""
    zero: Share = 0.01
    """Share of the tables in which memory was only read: they map the zero page only."""
    touches: Count = 1_000_000
    """Touches of what is left, Zipf with exponent 1."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        tables = tables_of(self.span)
        pages = np.minimum(rng.poisson(self.pages, tables), ENTRIES_PER_TABLE).astype(np.int16)
        zero = np.where(rng.random(tables) < self.zero, pages, 0).astype(np.int16)
        return plain_layout(np.arange(tables, dtype=np.int64), pages, zero)

    def trace(self, rng: np.random.Generator) -> Trace:
        layout = self.guest_mappings(rng)
        tables = len(layout.number)
        only_read = layout.zero_page > 0
        empty = np.flatnonzero(layout.pages == 0)
        left = np.flatnonzero(layout.pages > 0)
        parts = [
            (np.flatnonzero(~only_read), TouchKind.TOUCH),
            (np.flatnonzero(only_read), TouchKind.READ_ZERO),
            (empty, TouchKind.UNMAPPED),
        ]
        if len(left):
            picked = left[zipf_touches(rng, len(left), self.touches)]
            picked = picked[~only_read[picked]]
            parts.append((picked, TouchKind.TOUCH))
        return joined("jemalloc", tables, parts, "all touched once, most emptied, the rest touched by Zipf")

"""Memory that is mapped from end to end: the least tables that a size can have."""

from __future__ import annotations

import numpy as np

from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.patterns.base import (
    PATTERNS,
    Count,
    MappedSize,
    Pattern,
    full_pages,
    joined,
    plain_layout,
    tables_of,
)
from orchestrator.model.trace import TouchKind, Trace


@PATTERNS.register("dense")
class Dense(Pattern):
    """Every page mapped, then swept from end to end."""

    size: MappedSize = "6GiB"  # type: ignore[assignment]  # validated as a default
    """How much memory is mapped."""
    sweeps: Count = 3
    """How often it is read through."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:  # noqa: ARG002  # no chance in it
        pages = full_pages(self.size)
        return plain_layout(np.arange(len(pages), dtype=np.int64), pages)

    def trace(self, rng: np.random.Generator) -> Trace:  # noqa: ARG002  # no chance in it
        tables = tables_of(self.size)
        sweep = np.tile(np.arange(tables, dtype=np.uint32), self.sweeps)
        return joined("dense", tables, [(sweep, TouchKind.TOUCH)], "one touch of each table a sweep")

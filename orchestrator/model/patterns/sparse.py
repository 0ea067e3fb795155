"""The talk's experiment: one page in every 2 MiB, then all unmapped."""

from __future__ import annotations

import numpy as np

from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.patterns.base import (
    PATTERNS,
    MappedSize,
    Pattern,
    Share,
    joined,
    plain_layout,
    tables_of,
)
from orchestrator.model.trace import TouchKind, Trace


@PATTERNS.register("sparse")
class Sparse(Pattern):
    """One page touched in every 2 MiB of a span; then a share of them unmapped."""

    span: MappedSize = "50GiB"  # type: ignore[assignment]  # validated as a default
    """How much address space is touched."""
    unmapped: Share = 1.0
    """Share of the touched pages that are unmapped."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        tables = tables_of(self.span)
        kept = rng.random(tables) >= self.unmapped
        return plain_layout(np.arange(tables, dtype=np.int64), kept.astype(np.int16))

    def trace(self, rng: np.random.Generator) -> Trace:
        tables = tables_of(self.span)
        gone = np.flatnonzero(rng.random(tables) < self.unmapped)
        parts = [(np.arange(tables), TouchKind.TOUCH), (gone, TouchKind.UNMAPPED)]
        return joined("sparse", tables, parts, "touched once in the order of addresses")

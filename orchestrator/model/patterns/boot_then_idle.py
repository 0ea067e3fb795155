"""A guest that uses much at its start and then next to nothing."""

from __future__ import annotations

import numpy as np

from orchestrator.model.guest_tables import GuestMappings
from orchestrator.model.patterns.base import (
    PATTERNS,
    Count,
    MappedSize,
    Pattern,
    Share,
    full_pages,
    joined,
    plain_layout,
)
from orchestrator.model.trace import TouchKind, Trace


@PATTERNS.register("boot_then_idle")
class BootThenIdle(Pattern):
    """All memory touched once at boot, then a small working set for ever."""

    size: MappedSize = "8GiB"  # type: ignore[assignment]  # validated as a default
    """Memory that boot touches."""
    stays: Share = 0.05
    """Share of the tables that are used when it idles."""
    rounds: Count = 100
    """How often the working set is gone through, in any order."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        pages = full_pages(self.size)
        plain = plain_layout(np.arange(len(pages), dtype=np.int64), pages)
        idle = (rng.random(len(pages)) >= self.stays).astype(np.int32)
        return GuestMappings(plain.number, plain.pages, plain.zero_page, plain.page_cache, idle * self.rounds)

    def trace(self, rng: np.random.Generator) -> Trace:
        tables = len(full_pages(self.size))
        working = rng.permutation(tables)[: max(1, round(tables * self.stays))]
        rest = np.concatenate([rng.permutation(working) for _ in range(self.rounds)])
        parts = [(np.arange(tables), TouchKind.TOUCH), (rest, TouchKind.TOUCH)]
        return joined("boot_then_idle", tables, parts, "one touch of each table at boot")

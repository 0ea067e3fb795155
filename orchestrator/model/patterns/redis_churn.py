"""A Redis that has run for months: tens of TiB of address space used once, little of it resident."""

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
from orchestrator.units import ENTRIES_PER_TABLE, PAGE_BYTES


@PATTERNS.register("redis_churn")
class RedisChurn(Pattern):
    """Keys written and deleted for ever: the heap moved through its address space and left survivors.

    Most resident pages lie in full tables at the end of the heap, where it writes now; the others are
    survivors, spread by chance over all that it ever used. Defaults: after a production process of VIRT
    55 TB, RES 590 GB, VmPTE 110 GB (Qi Zheng, linux-mm 2021), whose share of survivors is not known.
    """

    span: MappedSize = "50TiB"  # type: ignore[assignment]  # validated as a default
    """Address space ever used."""
    resident: MappedSize = "600GiB"  # type: ignore[assignment]  # validated as a default
    """Memory in use."""
    survivors: Share = 0.1
    """Share of the resident pages that are scattered over the whole span."""
    zero: Share = 0.0
    """Share of the tables with survivors that map the zero page only."""
    touches: Count = 1_000_000
    """Touches of tables in use, Zipf with exponent 1."""

    def guest_mappings(self, rng: np.random.Generator) -> GuestMappings:
        tables = tables_of(self.span)
        resident = self.resident // PAGE_BYTES
        scattered = round(resident * self.survivors)
        full = min((resident - scattered) // ENTRIES_PER_TABLE, tables)
        pages = np.full(tables, ENTRIES_PER_TABLE, dtype=np.int16)
        old = tables - full
        if old:
            # Each page lands in any of the old tables alike: numbers a table are Poisson.
            pages[:old] = np.minimum(rng.poisson(scattered / old, old), ENTRIES_PER_TABLE)
        zero = None
        if self.zero:
            zero = np.zeros(tables, dtype=np.int16)
            zero[:old] = np.where(rng.random(old) < self.zero, pages[:old], 0)
        return plain_layout(np.arange(tables, dtype=np.int64), pages, zero)

    def trace(self, rng: np.random.Generator) -> Trace:
        layout = self.guest_mappings(rng)
        tables = len(layout.number)
        used = np.flatnonzero(layout.pages > 0)
        parts = [
            (np.arange(tables), TouchKind.TOUCH),
            (np.flatnonzero(layout.pages == 0), TouchKind.UNMAPPED),
        ]
        if len(used):
            parts.append((used[zipf_touches(rng, len(used), self.touches)], TouchKind.TOUCH))
        return joined("redis_churn", tables, parts, "written once, deleted, then used by Zipf")

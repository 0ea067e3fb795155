"""Tables that map the zero page and no memory: reading what was never written makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.patterns.base import LEAST_BYTES, PATTERNS, Kernel, Pattern
from orchestrator.audit.reading import Finding, ProcessReading
from orchestrator.units import format_size


class ZeroPage(Pattern):
    """All that a table maps is the zero page (do_anonymous_page(), mm/memory.c)."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Finding]:
        for one in processes:
            amount = one.zero_only.value or 0
            if amount >= LEAST_BYTES:
                yield Finding(
                    pattern="zero-page",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables map zero pages only: it read what it never wrote",
                    next=tuple(_next(kernel)),
                    source="mm/memory.c, do_anonymous_page(); Documentation/admin-guide/mm/pagemap.rst",
                )


def _next(kernel: Kernel) -> Iterator[str]:
    yield "do not read memory that was never written: pagemap tells it without a fault"
    if kernel.pt_reclaim:
        yield "discard 2 MiB or more in one madvise(MADV_DONTNEED): this kernel then frees the tables"


PATTERNS.register("zero-page")(ZeroPage())

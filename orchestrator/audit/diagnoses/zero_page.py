"""Tables that map the zero page and no memory: reading what was never written makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel
from orchestrator.audit.reading import Advice, ProcessReading
from orchestrator.units import format_size


class ZeroPage(Diagnosis):
    """All that a table maps is the zero page (do_anonymous_page(), mm/memory.c)."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:
        for one in processes:
            amount = one.zero_only.value or 0
            if amount >= LEAST_BYTES:
                yield Advice(
                    diagnosis="zero-page",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables map zero pages only: read, never written",
                    next=tuple(_next(kernel)),
                    source="mm/memory.c, do_anonymous_page(); Documentation/admin-guide/mm/pagemap.rst",
                )


def _next(kernel: Kernel) -> Iterator[str]:
    yield "do not read memory that was never written: pagemap tells it without a fault"
    if kernel.pt_reclaim:
        yield "discard 2 MiB or more in one madvise(MADV_DONTNEED): this kernel then frees the tables"


DIAGNOSES.register("zero-page")(ZeroPage())

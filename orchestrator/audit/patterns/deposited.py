"""Tables that are set aside, one for each anonymous huge page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.patterns.base import LEAST_BYTES, PATTERNS, Kernel, Pattern
from orchestrator.audit.reading import Finding, ProcessReading
from orchestrator.units import format_size


class Deposited(Pattern):
    """So that a huge page can always be split, its last-level table is there from the beginning
    (pgtable_trans_huge_deposit(), mm/huge_memory.c): 1/512 of the memory in huge pages."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Finding]:  # noqa: ARG002  # all patterns are called alike
        for one in processes:
            amount = one.deposited.value or 0
            if amount >= LEAST_BYTES:
                yield Finding(
                    pattern="deposited",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables are set aside for the split of huge pages",
                    next=(
                        "nothing frees them while the huge pages are mapped; hugetlbfs and shmem need none",
                    ),
                    source="mm/huge_memory.c, pgtable_trans_huge_deposit()",
                )


PATTERNS.register("deposited")(Deposited())

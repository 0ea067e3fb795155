"""Tables that are set aside, one for each anonymous huge page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel
from orchestrator.audit.reading import Advice, ProcessReading
from orchestrator.units import format_size


class Deposited(Diagnosis):
    """So that a huge page can always be split, its last-level table is there from the beginning
    (pgtable_trans_huge_deposit(), mm/huge_memory.c): 1/512 of the memory in huge pages."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:  # noqa: ARG002  # all are called alike
        for one in processes:
            amount = one.deposited.value or 0
            if amount >= LEAST_BYTES:
                yield Advice(
                    diagnosis="deposited",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables are set aside for the split of huge pages, "
                    "and stay while these are mapped",
                    next=(),
                    source="mm/huge_memory.c, pgtable_trans_huge_deposit()",
                )


DIAGNOSES.register("deposited")(Deposited())

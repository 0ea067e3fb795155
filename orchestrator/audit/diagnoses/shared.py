"""One memory, and page tables for it in each process that maps it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel
from orchestrator.audit.reading import Advice, ProcessReading, SharedMemory
from orchestrator.printable import clean
from orchestrator.units import PAGE_BYTES, format_size


class Shared(Diagnosis):
    """Processes share memory but not the tables that map it: each touches it through its own. Amounts are of
    last-level tables that are needed, summed over the processes that map the same file or object."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:  # noqa: ARG002  # all are called alike
        users: defaultdict[str, list[tuple[ProcessReading, SharedMemory]]] = defaultdict(list)
        for one in processes:
            for mapping in one.shared:
                users[mapping.key].append((one, mapping))
        for found in users.values():
            each = [mapping.needed_tables * PAGE_BYTES for _, mapping in found]
            amount = sum(each)
            if (
                len(found) > 1 and amount - max(each) >= LEAST_BYTES
            ):  # with one set of tables the rest was saved
                name = clean(found[0][1].name or "shared memory", 60)
                yield Advice(
                    diagnosis="shared",
                    pids=tuple(one.pid for one, _ in found),
                    amount=amount,
                    what=f"{len(found)} processes map the same memory ({name}) through tables of their own: "
                    f"{format_size(amount)} of them, where one set is {format_size(max(each))}",
                    next=tuple(_next(found[0][0])),
                    source="https://www.postgresql.org/docs/current/kernel-resources.html#LINUX-HUGE-PAGES; "
                    "Documentation/admin-guide/mm/hugetlbpage.rst",
                )


def _next(process: ProcessReading) -> Iterator[str]:
    if process.comm.startswith("postgres"):
        yield "postgres -D $PGDATA -C shared_memory_size_in_huge_pages   (it stopped): for vm.nr_hugepages"
        yield "huge_pages = on in postgresql.conf: hugetlbfs needs no last-level tables"
    else:
        yield "map it from hugetlbfs (MAP_HUGETLB, SHM_HUGETLB, MFD_HUGETLB): it needs no last-level tables"


DIAGNOSES.register("shared")(Shared())

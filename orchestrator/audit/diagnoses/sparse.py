"""Tables in which next to nothing is mapped: a page of table for a few pages of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel
from orchestrator.audit.reading import Advice, ProcessReading
from orchestrator.units import format_size

_REDIS = ("redis-server", "valkey-server")


class Sparse(Diagnosis):
    """At most 8 of the 512 pages of a table's range are there: a fragmented heap, or data that is spread.

    Discarding more empties no table while one page of its range stays.
    """

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:  # noqa: ARG002  # all are called alike
        for one in processes:
            # Those with zero pages only have a diagnosis of their own, and may be all of these.
            amount = max(0, (one.sparse.value or 0) - (one.zero_only.value or 0))
            if amount >= LEAST_BYTES:
                yield Advice(
                    diagnosis="sparse",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables map at most 8 of 512 pages each",
                    next=tuple(_next(one)),
                    source="redis.conf, activedefrag",
                )


def _next(process: ProcessReading) -> Iterator[str]:
    if process.comm in _REDIS:
        yield "redis-cli CONFIG SET activedefrag yes   (a Redis that was built with its own jemalloc can)"
    yield "place data closer together: a table stays while one page of its 2 MiB is there"


DIAGNOSES.register("sparse")(Sparse())

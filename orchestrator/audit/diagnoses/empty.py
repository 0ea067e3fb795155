"""Tables that map nothing any more: what they mapped was discarded, and the kernel kept them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.audit.diagnoses.base import DIAGNOSES, LEAST_BYTES, Diagnosis, Kernel, restart
from orchestrator.audit.reading import Advice, ProcessReading
from orchestrator.units import format_size


class Empty(Diagnosis):
    """madvise(MADV_DONTNEED) or reclaim cleared all entries; munmap frees the table, or the process's end."""

    def find(self, processes: Sequence[ProcessReading], kernel: Kernel) -> Iterator[Advice]:
        for one in processes:
            amount = one.unused.value or 0
            if amount >= LEAST_BYTES:
                yield Advice(
                    diagnosis="empty",
                    pids=(one.pid,),
                    amount=amount,
                    what=f"{format_size(amount)} of page tables map nothing: what they mapped was discarded",
                    next=tuple(_next(one, kernel)),
                    source="mm/pt_reclaim.c; https://jemalloc.net/jemalloc.3.html#opt.retain",
                )


def _next(process: ProcessReading, kernel: Kernel) -> Iterator[str]:
    yield f"{restart(process)}   (frees all of it)"
    if any("jemalloc" in library for library in process.libraries):
        # extent_dalloc_mmap(), src/extent_mmap.c: without `retain` it calls munmap(2).
        yield "start it with MALLOC_CONF=retain:false: jemalloc then unmaps what it frees, with its tables"
    # zap_pte_range(), mm/memory.c: only if the range that is discarded is at least PMD_SIZE.
    most = f"at most {format_size(process.unused.value or 0)}"
    if kernel.pt_reclaim:
        yield (
            "discard 2 MiB or more in one madvise(MADV_DONTNEED): this kernel (CONFIG_PT_RECLAIM) then frees "
            "tables; these were emptied in smaller steps, or otherwise"
        )
    elif kernel.pt_reclaim is False:
        yield (
            f"boot a kernel with CONFIG_PT_RECLAIM (6.14 or later): it frees {most}, namely of what is "
            "discarded 2 MiB or more at once, and nothing of what is discarded in smaller steps"
        )
    else:
        yield (
            f"grep PT_RECLAIM /boot/config-{kernel.release}: a kernel that has it frees {most}, namely "
            "of what is discarded 2 MiB or more at once"
        )


DIAGNOSES.register("empty")(Empty())

"""What allocators leave."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline


def _tables_left(allocator: str, arm: str) -> Part:
    return Part(
        f"{allocator}: page tables of the guest at the end, as a share of their peak, with 15 in 16 "
        "objects freed",
        Ratio(
            Headline("allocators", arm, "guest_page_table_bytes_end"),
            Headline("allocators", arm, "guest_page_table_bytes_peak"),
        ),
        Criterion(at_least=0.9),
        Unit.SHARE,
    )


SPARSE_MAPPINGS = claim(
    "sparse-mappings",
    place=2,
    sentence="jemalloc and tcmalloc discard the pages of what was freed and keep its mapping: its "
    "page tables stay, and map nothing.",
    parts=(
        _tables_left("jemalloc that discards freed pages at once", "jemalloc-decay-0"),
        _tables_left("tcmalloc that releases pages", "tcmalloc-release"),
        Part(
            "jemalloc: share of the guest's page tables that map nothing after that",
            Ratio(
                Headline("allocators", "jemalloc-decay-0", "guest_page_tables_empty"),
                Headline("allocators", "jemalloc-decay-0", "guest_page_tables_total"),
            ),
            Criterion(at_least=0.5),
            Unit.SHARE,
        ),
    ),
    changes="A load that frees whole ranges of 2 MiB would leave empty tables: here one object in 16 "
    "stays, and keeps its table in use.",
)

"""Huge pages beside page tables."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import AtSnapshot
from orchestrator.claims.shares import huge_ranges_freed


def _got(kernel: str) -> Ratio:
    """By the tables that are deposited, one for each huge page."""
    return Ratio(
        AtSnapshot("huge-pages", f"{kernel}-left", "faulted", "page_tables_deposited"),
        AtSnapshot("huge-pages", f"{kernel}-none", "faulted", "page_tables_deposited"),
    )


_FEWER = Criterion(at_most=0.95)

HUGE_PAGES = claim(
    "huge-pages",
    place=8,
    sentence="Page tables hinder compaction, so that there are fewer huge pages.",
    parts=(
        Part(
            "huge pages that faults get, with compaction, beside empty page tables that a kernel keeps, as a "
            "share of those in a guest without such tables",
            _got("6.12"),
            _FEWER,
            Unit.SHARE,
        ),
        Part(
            "the same of a kernel that has freed the last-level tables (CONFIG_PT_RECLAIM), so that as much "
            "memory is free as without them",
            _got("7.x"),
            _FEWER,
            Unit.SHARE,
        ),
        Part(
            "ranges of 2 MiB that only empty page tables keep from compaction, as a share of all ranges",
            huge_ranges_freed("pmd", "linux-6.12", "loaded", "empty_all_levels"),
            Criterion(at_least=0.05),
            Unit.SHARE,
        ),
    ),
    changes="What is asked for: each kernel is asked for nearly all that is free there, since of little "
    "all are huge pages.",
)

"""Huge pages beside page tables."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Awaited
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import huge_ranges_freed

HUGE_PAGES = claim(
    "huge-pages",
    place=8,
    sentence="Page tables hinder compaction, so that there are fewer huge pages.",
    parts=(
        Part(
            "huge pages that faults get, and compaction that fails, beside page tables",
            Awaited("huge-pages"),
        ),
        Part(
            "ranges of 2 MiB that only empty page tables keep from compaction, as a share of all ranges",
            huge_ranges_freed("pmd", "linux-6.12", "loaded", "empty_all_levels"),
            Criterion(at_least=0.05),
            Unit.SHARE,
        ),
    ),
    changes="A scenario that faults huge pages in beside page tables and counts those it gets.",
)

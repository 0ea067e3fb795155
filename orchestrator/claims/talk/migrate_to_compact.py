"""Moving tables to make room for huge pages and unplug."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import blocks_freed, huge_ranges_freed

MIGRATE_TO_COMPACT = claim(
    "migrate-to-compact",
    place=20,
    sentence="Migration of page tables lets memory be compacted and unplugged.",
    parts=(
        Part(
            "kernel that migrates page tables",
            Untestable("no released kernel migrates page tables"),
        ),
        Part(
            "share of the blocks still plugged that would be free with page tables migrated",
            blocks_freed("pmd", "linux-6.12", "migrate", "blocks_freed_if_moved"),
            Criterion(at_least=0.9),
            Unit.SHARE,
        ),
        Part(
            "ranges of 2 MiB that could become a huge page only then, as a share of all",
            huge_ranges_freed("pmd", "linux-6.12", "unplugged", "migrate"),
            Criterion(at_least=0.05),
            Unit.SHARE,
        ),
    ),
    changes="A guest whose page tables share their blocks with other unmovable memory: see "
    "unplug-kernel-objects.",
)

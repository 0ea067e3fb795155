"""Bytes are not blocks."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Compared
from orchestrator.claims.shares import blocks_freed

_HALF = Criterion(at_least=0.5)

RECLAIM_UNPLUGS = claim(
    "reclaim-unplugs",
    place=11,
    sentence="Freeing unreferenced tables makes the memory that they pinned unpluggable.",
    parts=(
        Part(
            "change of what hot-unplug falls short by, on a kernel that frees last-level tables",
            Compared("pmd", "linux-6.12", "linux-7.x", "unplug_shortfall_bytes", relative=True),
            Criterion(at_most=-0.5),
            Unit.SHARE,
        ),
        Part(
            "share of the blocks still plugged that would be free without empty last-level tables",
            blocks_freed("pmd", "linux-6.12", "empty"),
            _HALF,
            Unit.SHARE,
        ),
        Part(
            "the same without empty tables of all levels",
            blocks_freed("pmd", "linux-6.12", "empty_all_levels"),
            _HALF,
            Unit.SHARE,
        ),
    ),
    changes="A kernel that frees PMD tables as well: one of them is left in nearly every block.",
)

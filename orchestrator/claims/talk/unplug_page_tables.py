"""Page tables against hot-unplug."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline
from orchestrator.claims.shares import sole_blocker
from orchestrator.model.frame_class import FrameClass

UNPLUG_PAGE_TABLES = claim(
    "unplug-page-tables",
    place=4,
    sentence="Memory hot-unplug fails on page tables alone.",
    parts=(
        Part(
            "share of the blocks still plugged of which page tables are the sole blocker",
            sole_blocker("pmd", "linux-6.12", FrameClass.PAGE_TABLE),
            Criterion(at_least=0.5),
            Unit.SHARE,
        ),
        Part(
            "memory onlined as kernel memory: blocks still plugged that contain a page table",
            Headline("online-policy", "linux-6.12-kernel", "blocks_pinned_page_table"),
            Criterion(at_least=1),
        ),
        Part(
            "memory onlined as movable: blocks still plugged that contain a page table",
            Headline("online-policy", "linux-6.12-movable", "blocks_pinned_page_table"),
            Criterion(at_least=1),
        ),
    ),
    changes="The online policy: page tables are not allocated in ZONE_MOVABLE, and all of it was unplugged.",
)

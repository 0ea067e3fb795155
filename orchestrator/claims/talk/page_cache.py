"""Tables that faults can make again."""

from orchestrator.claims.arithmetic import Less, Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline, OfPolicy


def _cache_only(run: str, snapshot: str) -> Ratio:
    """What `page_cache` frees beyond `empty`, of the tables that are not empty."""

    def freed(policy: str) -> OfPolicy:
        return OfPolicy(run, "linux-6.12", snapshot, policy, "tables_freed")

    return Ratio(
        Less(freed("page_cache"), freed("empty")),
        Less(Headline(run, "linux-6.12", "guest_page_tables_total"), freed("empty")),
    )


_TENTH = Criterion(at_least=0.1)


PAGE_CACHE = claim(
    "page-cache",
    place=19,
    sentence="Tables that map the page cache are worth reclaiming: faults make them again from it.",
    parts=(
        Part(
            "tables that map the page cache only, as a share of those in use, in a guest with Redis",
            _cache_only("quickstart", "loaded"),
            _TENTH,
            Unit.SHARE,
        ),
        Part(
            "the same in a guest that reads one page in 2 MiB of a file of 50 GiB, and keeps it mapped",
            _cache_only("file-mappings", "mapped"),
            _TENTH,
            Unit.SHARE,
        ),
    ),
    changes="How much of a guest's files is mapped, and how sparsely: the second guest does nothing else.",
)

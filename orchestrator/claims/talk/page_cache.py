"""Tables that faults can make again."""

from orchestrator.claims.arithmetic import Less, Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Awaited
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline, OfPolicy
from orchestrator.observation import Origin


def _freed(policy: str) -> OfPolicy:
    return OfPolicy("quickstart", "linux-6.12", "loaded", policy, "tables_freed")


PAGE_CACHE = claim(
    "page-cache",
    place=19,
    sentence="Tables that map the page cache are worth reclaiming: faults make them again from it.",
    parts=(
        Part(
            "tables that map the page cache only, as a share of those in use, in a guest with Redis",
            Ratio(
                Less(_freed("page_cache"), _freed("empty")),
                Less(Headline("quickstart", "linux-6.12", "guest_page_tables_total"), _freed("empty")),
            ),
            Criterion(at_least=0.1),
            Unit.SHARE,
        ),
        Part(
            "the same in a guest that maps large files and keeps them mapped",
            Awaited("file-mappings", Origin.MODELLED),
        ),
    ),
    changes="A scenario with such a guest: `sparse-map` with `backing: file` and `advice: keep`.",
)

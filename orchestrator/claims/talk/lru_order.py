"""Which table to take."""

from orchestrator.claims.arithmetic import AtSameCosts
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import OvercommitFigure


def _ratio(policy: str, other: str, key: str) -> AtSameCosts:
    return AtSameCosts(
        OvercommitFigure("order", policy, "swap", key), OvercommitFigure("order", other, "swap", key)
    )


LRU_ORDER = claim(
    "lru-order",
    place=18,
    sentence="To reclaim tables in the order of their last use is better than at random.",
    parts=(
        Part("kernel that does it", Untestable("no released kernel keeps page tables in an LRU list")),
        Part(
            "latency added on average by lru, as a share of that by a random pick, at low, typical "
            "and high costs",
            _ratio("lru", "pressure_random", "added.mean"),
            Criterion(at_most=0.95),
            Unit.SHARE,
        ),
        Part(
            "the same at the 99th percentile",
            _ratio("lru", "pressure_random", "added.p99"),
            Criterion(at_most=0.95),
            Unit.SHARE,
        ),
        Part(
            "memory of page tables at the peak, likewise",
            _ratio("lru", "pressure_random", "table_bytes_peak"),
            Criterion(at_most=0.95),
            Unit.SHARE,
        ),
    ),
    changes="How often real tables are touched is not known: the model assumes a Zipf law.",
)

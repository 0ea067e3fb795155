"""Under pressure: tables without contents."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import killed

_FEWER = Criterion(at_most=0.9)

EMPTY_AND_ZERO = claim(
    "empty-and-zero",
    place=15,
    sentence="Under memory pressure, tables that are empty or map the zero page only are freed, which "
    "saves guests.",
    parts=(
        Part(
            "kernel that frees tables of the zero page",
            Untestable("no released kernel frees tables that map the zero page only"),
        ),
        Part(
            "guests killed with empty tables freed, as a share of those killed without, in idle.yaml",
            killed("idle", "empty", "swap"),
            _FEWER,
            Unit.SHARE,
        ),
        Part(
            "the same with tables of the zero page freed as well",
            killed("idle", "zero_page", "swap"),
            _FEWER,
            Unit.SHARE,
        ),
    ),
    changes="How common such guests are: in scenarios/overcommit/sparse.yaml no table is empty when "
    "memory is short, and freeing empty ones saves hardly a guest.",
)

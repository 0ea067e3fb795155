"""The talk's example."""

from orchestrator.claims.base import Part, claim
from orchestrator.claims.evidence import Untestable

REDIS_600GIB = claim(
    "redis-600gib",
    place=3,
    sentence="A Redis of 600 GiB that has run for long has 100 GiB of page tables.",
    parts=(
        Part(
            "page tables of such a Redis",
            Untestable("a guest of 600 GiB fits no machine that this runs on"),
        ),
    ),
    changes="`orchestrator audit` on a machine that runs one says what its page tables hold and need. "
    "The pattern `redis_churn` of the model has such tables because it assumes that a tenth "
    "of the data is scattered: it shows what it would take, and tests nothing.",
)

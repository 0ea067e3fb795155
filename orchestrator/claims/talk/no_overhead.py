"""What freeing tables costs."""

from orchestrator.claims.base import Part, claim
from orchestrator.claims.evidence import Awaited

NO_OVERHEAD = claim(
    "no-overhead",
    place=12,
    sentence="Freeing unreferenced tables on madvise() has no overhead.",
    parts=(
        Part(
            "instructions for each table of a discard, and of the next touch, with and without "
            "CONFIG_PT_RECLAIM",
            Awaited("costs"),
        ),
    ),
    changes="Instructions show neither cache nor TLB misses: these need a host with KVM.",
)

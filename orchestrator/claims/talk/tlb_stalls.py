"""What address translation costs."""

from orchestrator.claims.base import Part, claim
from orchestrator.claims.evidence import Untestable

TLB_STALLS = claim(
    "tlb-stalls",
    place=9,
    sentence="Fewer huge pages mean more TLB stalls; reclaim of page tables reduces them.",
    parts=(
        Part(
            "cycles that page walks take",
            Untestable(
                "an emulated processor has no counter of page walks, and QEMU's TLB is no processor's"
            ),
        ),
    ),
    changes="The same scenarios on a host with KVM, with a step that reads the counters of page walks "
    "(perf).",
)

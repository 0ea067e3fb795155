"""What address translation costs."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Untestable
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import TlbAfterPolicy, TlbWithoutHugePages

_MORE = (
    "references of page walks for each access to 64 GiB without huge pages, as a multiple of those with "
    "nothing else, at both levels; accesses {}. A CPU that caches nothing has 1.6"
)
_WITHOUT_CACHES = 24 / 15
"""Two-dimensional walks without any cache: (4 + 1) * (4 + 1) - 1 references with 4 KiB pages, and
(3 + 1) * (3 + 1) - 1 with 2 MiB pages at both levels. That much follows from the lengths of walks alone."""
_LESS = (
    "references for each access to a guest's own memory with the huge pages that it could have after policy "
    "`{}`, as a share of those with what it could have as it was; a host of huge pages, accesses to a hot set"
)

TLB_STALLS = claim(
    "tlb-stalls",
    place=9,
    sentence="Fewer huge pages mean more TLB stalls; reclaim of page tables reduces them.",
    parts=(
        Part(
            "cycles that page walks take",
            Untestable(
                "guests of all committed results are emulated, at one level or both: no PMU counts their "
                "page walks, and QEMU's TLB is no processor's"
            ),
        ),
        Part(
            _MORE.format("uniform"),
            TlbWithoutHugePages("uniform"),
            Criterion(at_least=_WITHOUT_CACHES),
            Unit.RATIO,
        ),
        Part(
            _MORE.format("by Zipf's law over scattered pages"),
            TlbWithoutHugePages("zipf"),
            Criterion(at_least=_WITHOUT_CACHES),
            Unit.RATIO,
        ),
        Part(
            _MORE.format("to a hot set"),
            TlbWithoutHugePages("hot"),
            Criterion(at_least=_WITHOUT_CACHES),
            Unit.RATIO,
        ),
        Part(
            _LESS.format("empty"),
            TlbAfterPolicy("hot", "empty"),
            Criterion(at_most=0.95),
            Unit.RATIO,
        ),
        Part(
            _LESS.format("empty_all_levels"),
            TlbAfterPolicy("hot", "empty_all_levels"),
            Criterion(at_most=0.95),
            Unit.RATIO,
        ),
    ),
    changes="A KVM host with a PMU, where readings of `host_perf` have the cycles of page walks. The model "
    "counts references, wherever they are cached; by other patterns of accesses it says something else. "
    "Of a larger guest with the same shares policies save less: this one's huge pages fit the TLB.",
)

"""What freeing tables costs."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Compared

_NONE = Criterion(at_most=0.01)


def _more(what: str, mapping: str, phase: str) -> Part:
    return Part(
        f"{what}: more instructions for each table on a kernel with CONFIG_PT_RECLAIM than on one without",
        Compared(
            "costs", f"6.12-{mapping}", f"7.x-{mapping}", f"{phase}_instructions_per_table", relative=True
        ),
        _NONE,
        Unit.SHARE,
    )


NO_OVERHEAD = claim(
    "no-overhead",
    place=12,
    sentence="Freeing unreferenced tables on madvise() has no overhead.",
    parts=(
        _more("madvise() of tables with one page each", "sparse", "discard"),
        _more("madvise() of full tables", "dense", "discard"),
        _more("the next touch, which makes a table of one page again", "sparse", "touch_again"),
    ),
    changes="The two kernels differ in more than that, so one of a series with and without the option. "
    "Instructions show neither cache nor TLB misses: these need a host with KVM.",
)

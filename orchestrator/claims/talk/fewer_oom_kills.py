"""What overcommit ends in."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Compared, Headline
from orchestrator.claims.shares import killed


def _kills(file: str) -> Part:
    return Part(
        f"guests killed with the talk's policy and swap, as a share of those killed without, in {file}.yaml",
        killed(file, "pressure_random", "swap"),
        Criterion(at_most=0.9),
        Unit.SHARE,
    )


FEWER_OOM_KILLS = claim(
    "fewer-oom-kills",
    place=17,
    sentence="Reclaim of page tables means fewer OOM kills under overcommit.",
    parts=(
        Part(
            "processes killed in a guest whose discarded ranges keep their tables",
            Headline("oom", "6.12-768m-none", "guest_oom_kills"),
            Criterion(at_least=1),
        ),
        Part(
            "its difference on a kernel that frees them when they are discarded (CONFIG_PT_RECLAIM)",
            Compared("oom", "6.12-768m-none", "7.x-768m-none", "guest_oom_kills"),
            Criterion(at_most=-1),
        ),
        _kills("sparse"),
        _kills("idle"),
        _kills("dense"),
    ),
    changes="The guests: with densely used memory tables are a thousandth of the data, and nothing "
    "that is done with them matters.",
)

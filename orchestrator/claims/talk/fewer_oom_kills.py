"""What overcommit ends in."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Awaited, OvercommitFigure, Ratio
from orchestrator.claims.figure import Unit


def _kills(file: str, action: str) -> Part:
    return Part(
        f"guests killed with the talk's policy and {action}, as a share of those killed without, in "
        f"{file}.yaml",
        Ratio(
            OvercommitFigure(file, "pressure_random", action, "killed"),
            OvercommitFigure(file, "none", "swap" if file in {"idle", "order"} else "drop", "killed"),
        ),
        Criterion(at_most=0.9),
        Unit.SHARE,
    )


FEWER_OOM_KILLS = claim(
    "fewer-oom-kills",
    place=17,
    sentence="Reclaim of page tables means fewer OOM kills under overcommit.",
    parts=(
        Part("processes that a kernel with and one without reclaim kills", Awaited("oom")),
        _kills("sparse", "swap"),
        _kills("idle", "swap"),
        _kills("dense", "swap"),
    ),
    changes="The guests: with densely used memory tables are a thousandth of the data, and nothing "
    "that is done with them matters.",
)

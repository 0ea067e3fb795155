"""What overcommit ends in."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Awaited
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_models import OvercommitFigure


def _kills(file: str) -> Part:
    return Part(
        f"guests killed with the talk's policy and swap, as a share of those killed without, in {file}.yaml",
        Ratio(
            OvercommitFigure(file, "pressure_random", "swap", "killed"),
            OvercommitFigure(file, "none", "", "killed"),
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
        _kills("sparse"),
        _kills("idle"),
        _kills("dense"),
    ),
    changes="The guests: with densely used memory tables are a thousandth of the data, and nothing "
    "that is done with them matters.",
)

"""Freeing KVM's tables under a guest."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import AtMoment

_HALF = Criterion(at_most=0.5)


def _left(run: str, arm: str, before: str, after: str) -> Ratio:
    return Ratio(
        AtMoment(run, arm, after, "second_level_bytes"), AtMoment(run, arm, before, "second_level_bytes")
    )


SECOND_LEVEL_RECLAIM = claim(
    "second-level-reclaim",
    place=14,
    sentence="Second-level tables of a VM can be freed while it runs.",
    parts=(
        Part(
            "left of the tables of a full guest, after a balloon and a memory slot that was removed",
            _left("second-level-levers", "balloon-and-slot", "filled", "emptied"),
            _HALF,
            Unit.SHARE,
        ),
        Part(
            "left by the lever flush, under load",
            _left("reclaim", "flush", "before", "after"),
            _HALF,
            Unit.SHARE,
        ),
        Part(
            "left by the lever collapse-and-flush, under load",
            _left("reclaim", "collapse-and-flush", "before", "after"),
            _HALF,
            Unit.SHARE,
        ),
    ),
    changes="These levers free all tables of a VM and let faults make those in use again. To pick "
    "single tables takes a change of KVM.",
)

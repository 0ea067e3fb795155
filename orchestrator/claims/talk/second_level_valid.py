"""What KVM's tables map."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import AtMoment, AtSnapshot, SecondLevelFreed


def _used(what: str, arm: str, moment: str) -> Part:
    return Part(
        f"second-level tables that are needed (predicted), as a share of those measured: {what}",
        Ratio(
            AtMoment("second-level", arm, moment, "needed_bytes"),
            AtMoment("second-level", arm, moment, "second_level_bytes"),
        ),
        Criterion(at_least=0.95),
        Unit.SHARE,
    )


SECOND_LEVEL_VALID = claim(
    "second-level-valid",
    place=13,
    sentence="Second-level page tables of VMs always hold valid entries.",
    parts=(
        _used("guest full", "balloon", "filled"),
        _used("after a balloon of 600 MiB", "balloon", "emptied"),
        _used("the same on huge pages of the host", "balloon-thp", "emptied"),
        _used("after hot-unplug of 256 MiB", "unplug", "emptied"),
        Part(
            "share of KVM's tables in the host's memory that map nothing, after the balloon",
            Ratio(
                SecondLevelFreed("second-level", "balloon", "before", "empty"),
                AtSnapshot("second-level", "balloon", "before", "second_level_tables"),
            ),
            Criterion(at_most=0.05),
            Unit.SHARE,
        ),
    ),
    changes="A guest that gives none of its memory to the host keeps its tables in use, as while it "
    "fills here.",
)

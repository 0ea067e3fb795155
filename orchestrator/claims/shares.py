"""Shares that several claims are judged by."""

from __future__ import annotations

from orchestrator.claims.arithmetic import Less, Ratio
from orchestrator.claims.of_models import OvercommitFigure
from orchestrator.claims.of_runs import AtSnapshot, Blamed, OfPolicy
from orchestrator.model.frame_class import FrameClass

_UNPLUGGED = "unplugged"  # the label of the snapshot after hot-unplug


def sole_blocker(run: str, arm: str, frame_class: FrameClass) -> Ratio:
    """Of the blocks still plugged, those of which a class of frames is the sole blocker."""
    return Ratio(
        Blamed(run, arm, _UNPLUGGED, frame_class, "sole_blocker"),
        AtSnapshot(run, arm, _UNPLUGGED, "blocks_plugged"),
    )


def blocks_freed(run: str, arm: str, policy: str, column: str = "blocks_freed") -> Ratio:
    """Of the blocks still plugged, those that a policy would free."""
    return Ratio(
        OfPolicy(run, arm, _UNPLUGGED, policy, column), AtSnapshot(run, arm, _UNPLUGGED, "blocks_plugged")
    )


def huge_ranges_freed(run: str, arm: str, snapshot: str, policy: str) -> Ratio:
    """Of the ranges of 2 MiB, those that could become a huge page only with a policy."""

    def freeable(with_policy: str) -> OfPolicy:
        return OfPolicy(run, arm, snapshot, with_policy, "huge_freeable")

    return Ratio(Less(freeable(policy), freeable("none")), AtSnapshot(run, arm, snapshot, "huge_ranges"))


def killed(file: str, policy: str, action: str) -> Ratio:
    """Guests killed with a policy under overcommit, as a share of those killed without any."""
    return Ratio(
        OvercommitFigure(file, policy, action, "killed"), OvercommitFigure(file, "none", "", "killed")
    )

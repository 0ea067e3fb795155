"""Kernel objects against hot-unplug."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import sole_blocker
from orchestrator.model.frame_class import FrameClass


def _sole(what: str, arm: str, frame_class: FrameClass) -> Part:
    return Part(
        f"share of the blocks still plugged of which {what} the sole blocker",
        sole_blocker("blame", arm, frame_class),
        Criterion(at_least=0.5),
        Unit.SHARE,
    )


UNPLUG_KERNEL_OBJECTS = claim(
    "unplug-kernel-objects",
    place=6,
    sentence="Memory hot-unplug fails on kernel objects alone.",
    parts=(
        _sole("slab (dentries and inodes) is", "dentries", FrameClass.SLAB),
        _sole("slab (areas of a process) is", "vmas", FrameClass.SLAB),
        _sole("pages of pipes are", "pipes", FrameClass.KERNEL),
        _sole("slab of threads is", "kernel-stacks", FrameClass.SLAB),
    ),
    changes="More boots would give an interval. Threads have page tables beside their slab in the "
    "same blocks, so neither is the sole blocker there.",
)

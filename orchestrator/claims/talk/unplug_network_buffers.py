"""Network buffers against hot-unplug."""

from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.figure import Unit
from orchestrator.claims.shares import sole_blocker
from orchestrator.model.frame_class import FrameClass

UNPLUG_NETWORK_BUFFERS = claim(
    "unplug-network-buffers",
    place=5,
    sentence="Memory hot-unplug fails on network buffers alone.",
    parts=(
        Part(
            "share of the blocks still plugged of which unread data of sockets is the sole blocker "
            "(6.12 does not mark it: other kernel memory)",
            sole_blocker("blame", "network-buffers", FrameClass.KERNEL),
            Criterion(at_least=0.5),
            Unit.SHARE,
        ),
    ),
    changes="More boots would give an interval. Sockets of a network card, whose rings are there from "
    "boot on, were not looked at: these are connections of the guest with itself.",
)

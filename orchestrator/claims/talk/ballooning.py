"""Ballooning beside unmovable memory."""

from orchestrator.claims.arithmetic import Ratio
from orchestrator.claims.base import Criterion, Part, claim
from orchestrator.claims.evidence import Awaited
from orchestrator.claims.figure import Unit
from orchestrator.claims.of_runs import Headline

BALLOONING = claim(
    "ballooning",
    place=7,
    sentence="Ballooning fails on unmovable memory as hot-unplug does.",
    parts=(
        Part(
            "share of 256 MiB requested by which a balloon inflated in a guest of 2.5 GiB, 100 MiB of "
            "it page tables",
            Ratio(
                Headline("quickstart", "linux-6.12", "balloon_achieved_bytes"),
                Headline("quickstart", "linux-6.12", "balloon_requested_bytes"),
            ),
            Criterion(at_most=0.99),
            Unit.SHARE,
        ),
        Part("the same of a request as large as that of hot-unplug", Awaited("balloon-limit")),
    ),
    changes="A balloon takes single pages, so unmovable memory keeps its own bytes from it and "
    "nothing beside. A scenario that requests more than is free would show how much that is.",
)
